"""Draws which pairs of methods are separated, and lists them."""

from collections.abc import Mapping, Sequence

import pandas as pd
from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.comparisons import LEAST_SEEDS, compared_rows
from rscl_bench.leaderboards.corrections import RATE
from rscl_bench.leaderboards.formats import points as points_text
from rscl_bench.leaderboards.keys import RowKey
from rscl_bench.leaderboards.page.canvas import LETTER, Canvas, words
from rscl_bench.leaderboards.page.markup import element, joined, number, scrolling
from rscl_bench.leaderboards.page.series import Series
from rscl_bench.leaderboards.page.views import View

#: Classes of a pair, and what they mean.
STATES = {
    "better": "row above column, separated",
    "worse": "row below column, separated",
    "before": f"p ≤ {RATE} before the correction only",
    "level": "not separated",
    "unknown": "cannot be judged",
}


def separations_part(board: Board, view: View, series: Sequence[Series]) -> Markup:
    """Return the matrix of one probe and score, the list of separated pairs, and what is left out.

    Args:
        board: The leaderboard.
        view: A view with a probe.
        series: All rows.
    """
    assert view.probe is not None
    compared = board.compared[
        (board.compared["probe"] == view.probe.name) & (board.compared["score"] == view.kind)
    ]
    pairs = dict(zip(compared_rows(compared), compared.itertuples(), strict=True))
    rows = [one for one in series if any(one.row.key in pair for pair in pairs)]
    absent = [one.label for one in series if one.trained and one not in rows]
    judged = compared[compared["separated"].notna()]
    apart = judged[judged["separated"].astype(bool)]
    parts: list[str] = [
        element(
            "p",
            f"{len(apart)} of {len(judged)} pairs are separated after the correction; "
            f"{int((judged['p'] <= RATE).sum())} have p ≤ {RATE} before it. All pairs: ",
            element("a", "comparisons.csv", href="comparisons.csv"),
            ".",
        )
    ]
    if rows:
        parts += [_matrix(view, rows, pairs), _key(), _listed(board, apart)]
    if absent:
        reason = f"Not compared, as they have fewer than {LEAST_SEEDS} common seeds"
        parts.append(element("p", f"{reason}: {', '.join(absent)}.", class_="missing"))
    return joined(parts)


def _state(one: RowKey, other: RowKey, pairs: Mapping[tuple[RowKey, RowKey], object]) -> str:
    """Return the class of a pair as seen from its first row."""
    line: pd.Series | object | None = pairs.get((one, other), pairs.get((other, one)))
    separated = getattr(line, "separated", pd.NA)
    if pd.isna(separated):
        return "unknown"
    if separated:
        up = getattr(line, "difference") > 0  # noqa: B009
        return "better" if up == ((one, other) in pairs) else "worse"
    return "before" if getattr(line, "p") <= RATE else "level"  # noqa: B009


def _matrix(
    view: View, rows: Sequence[Series], pairs: Mapping[tuple[RowKey, RowKey], object]
) -> Markup:
    names = [one.short(26) for one in rows]
    room = LETTER * max(map(len, names)) + 14
    side = 22.0
    turned_room = room * 0.72  # a name at 45° takes as much above the cells and right of them
    cells_width = side * len(rows)
    canvas = Canvas(width=room + cells_width + turned_room, height=cells_width + turned_room + 16)
    top = turned_room + 8
    cells: dict[str, list[str]] = {state: [] for state in STATES}
    for y, one in enumerate(rows):
        for x, other in enumerate(rows):
            if x != y:
                state = _state(one.row.key, other.row.key, pairs)
                at = (number(room + side * x + 1), number(top + side * y + 1))
                cells[state].append(f"M{at[0]} {at[1]}h20v20h-20z")
    turned = f"{number(top - 6)})"
    across = [
        words(
            name,
            0,
            0,
            transform=f"translate({number(room + side * (x + 0.5) + 4)} {turned} rotate(-45)",
        )
        for x, name in enumerate(names)
    ]
    down = [
        words(name, room - 8, top + side * (y + 0.5) + 4, anchor="end")
        for y, name in enumerate(names)
    ]
    return canvas.drawing(
        f"Separated pairs, {view.title}",
        "Each cell compares the method of its row with that of its column. The separated pairs are "
        "listed below.",
        *(element("path", d="".join(d), class_=f"pair {state}") for state, d in cells.items() if d),
        element("g", *across, *down, class_="axis"),
        kind="matrix",
    )


def _key() -> Markup:
    items = [
        element("li", element("span", class_=f"swatch {state}"), meaning)
        for state, meaning in STATES.items()
    ]
    return element("ul", *items, class_="key")


def _listed(board: Board, apart: pd.DataFrame) -> Markup:
    """Return the table of the separated pairs, the better row first."""
    if apart.empty:
        return Markup("")
    labels = {row.key: board.label(row) for row in board.rows}
    lines = []
    for (one, other), line in zip(compared_rows(apart), apart.itertuples(), strict=True):
        cells = [
            points_text(getattr(line, name))
            for name in ("difference", "seed_low", "seed_high", "image_low", "image_high")
        ]
        shown = [
            labels[one],
            labels[other],
            cells[0],
            f"[{cells[1]}, {cells[2]}]",
            f"[{cells[3]}, {cells[4]}]",
            f"{line.p_bh:.4g}",
        ]
        lines.append(element("tr", *(element("td", cell) for cell in shown)))
    heads = (
        "method",
        "other",
        "difference, points",
        "over seeds",
        "over test images",
        "adjusted p",
    )
    return element(
        "details",
        element("summary", f"The {len(lines)} separated pairs"),
        scrolling(
            element(
                "table",
                element("thead", element("tr", *(element("th", h, scope="col") for h in heads))),
                element("tbody", *lines),
            ),
            "Separated pairs",
        ),
    )
