"""Names the colours of the pages, light and dark."""

from collections.abc import Mapping

_SERIES_LIGHT = "#0b5cad #b3390b #137a4b #8a3ab9 #8a5a00 #b0156b #006d77 #5b5f00"
_SERIES_DARK = "#6cb2ff #ff9466 #56d39a #cf9bff #e3b341 #ff7fbf #4fd1d9 #c3cc4f"
_HEAT_LIGHT = "#f1f6fc #dbe8f6 #c3d9ef #a5c6e6 #80aeda #2f6cab #215a97 #154882 #0a366b"
_HEAT_DARK = "#16202b #1a2b3d #1d3650 #1f4265 #204f7c #1f5e96 #7fb5e6 #a3cbf0 #c9e2f8"
#: The first colour of the heat map whose text is that of the other end.
_TURN_LIGHT, _TURN_DARK = 5, 6


def _palette(series: str, heat: str, turn: int, texts: tuple[str, str]) -> dict[str, str]:
    """Return the colours of lines, and of cells with their texts."""
    cells = heat.split()
    return {
        **{f"s{place}": colour for place, colour in enumerate(series.split())},
        **{f"h{place}": colour for place, colour in enumerate(cells)},
        **{f"t{place}": texts[place >= turn] for place in range(len(cells))},
    }


#: Colours by name. Text is ``text``, ``muted``, ``link``, ``warn``, ``sx``, ``ref`` and ``s0`` to
#: ``s7`` on ``page`` and ``panel``; ``t0`` to ``t8`` are texts on ``h0`` to ``h8``.
LIGHT: Mapping[str, str] = {
    "page": "#ffffff",
    "panel": "#f5f7f9",
    "text": "#1b1f24",
    "muted": "#57606a",
    "rule": "#d0d7de",
    "link": "#0b57d0",
    "warn": "#8a2a00",
    "sx": "#66707b",
    "ref": "#57606a",
    "better": "#137a4b",
    "worse": "#c2410c",
    "before": "#e9c46a",
    "level": "#e3e7eb",
    **_palette(_SERIES_LIGHT, _HEAT_LIGHT, _TURN_LIGHT, ("#1b1f24", "#ffffff")),
}
DARK: Mapping[str, str] = {
    "page": "#0f1419",
    "panel": "#171d24",
    "text": "#e6edf3",
    "muted": "#9aa5b1",
    "rule": "#343c45",
    "link": "#79b8ff",
    "warn": "#ffb088",
    "sx": "#8f99a4",
    "ref": "#9aa5b1",
    "better": "#2f9e6b",
    "worse": "#e0703f",
    "before": "#8a7328",
    "level": "#28303a",
    **_palette(_SERIES_DARK, _HEAT_DARK, _TURN_DARK, ("#e6edf3", "#0f1419")),
}


def colour_style() -> str:
    """Return the rules that define the colours: light, dark where asked for, light on paper."""
    light, dark = (
        ";".join(f"--{name}:{colour}" for name, colour in palette.items())
        for palette in (LIGHT, DARK)
    )
    return (
        f":root{{{light}}}\n"
        f"@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}\n"
        + "\n".join(
            [
                *(f".s{n}{{--c:var(--s{n})}}" for n in range(8)),
                *(f".h{n}{{background:var(--h{n});color:var(--t{n})}}" for n in range(9)),
            ]
        )
    )
