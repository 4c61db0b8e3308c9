"""Markdown tables of all components, made from the registry and the TOMLs.

A page holds a table between two marker comments::

    <!-- list methods -->
    <!-- end -->

``python -m rscl_bench.catalogue README.md docs/*.md`` rewrites the tables of pages. A new component
therefore needs no edit of a page by hand.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rscl_bench import registry
from rscl_bench.declarations import declarations, read_toml
from rscl_bench.errors import unknown
from rscl_bench.registry import Entry
from rscl_bench.sensor_table import SENSORS

KINDS = ("scenarios", "methods", *registry.BUILTIN)
CARDS = ("scenario-cards", "method-cards")

_TABLE = re.compile(r"<!-- list ([\w-]+) -->\n.*?<!-- end -->", re.DOTALL)


def summaries(kind: str) -> dict[str, str]:
    """Return one line on every component of a kind, by name.

    Args:
        kind: One of `KINDS`.

    Raises:
        SpecError: If there is no such kind.
    """
    if kind in ("scenarios", "methods"):
        paths = declarations("scenarios" if kind == "scenarios" else "methods")
        return {name: str(read_toml(path)["title"]) for name, path in paths.items()}
    if kind in registry.BUILTIN:
        return {name: entry.summary for name, entry in registry.entries(kind).items()}
    raise unknown("kind of component", kind, KINDS)


def families() -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the components of every kind and family: a title, and one line on each component."""
    for kind in ("scenarios", "methods"):
        yield kind, summaries(kind)
    for kind in registry.BUILTIN:
        entries = registry.entries(kind)
        for family in sorted({entry.family for entry in entries.values()}):
            title = f"{kind}, {family}" if family else kind
            yield title, {n: e.summary for n, e in entries.items() if e.family == family}
    yield (
        "sensors",
        {name: sensor.described_bands() for name, sensor in SENSORS.items()},
    )


def markdown(kind: str) -> str:
    """Return the table of all components of a kind as Markdown.

    Methods with strategies are grouped by the families of their strategies, and the others by the
    family of their objective. Datasets have a section each. Every other kind has one row for each
    component. The kinds of `CARDS` link scenarios or methods to their cards, for a page of `docs/`.

    Args:
        kind: One of `KINDS` or of `CARDS`.

    Raises:
        SpecError: If there is no such kind.
    """
    if kind == "methods":
        return _method_table()
    if kind == "method-cards":
        return _method_cards()
    if kind == "scenario-cards":
        paths = declarations("scenarios")
        rows = (
            (f"[`{name}`](../scenarios/{name}.md)", read_toml(path)["title"])
            for name, path in sorted(paths.items())
        )
        return _table(("scenario", "content"), rows)
    if kind == "scenarios":
        paths = declarations("scenarios")
        titles = ((f"`{name}`", read_toml(path)["title"]) for name, path in sorted(paths.items()))
        return _table(("scenario", "content"), titles)
    if kind == "datasets":
        from rscl_bench.archives.describe import markdown as section

        return "\n".join(section(name) for name in registry.entries("datasets"))
    if kind in registry.BUILTIN:
        return _entry_table(registry.entries(kind))
    raise unknown("kind of component", kind, KINDS)


def updated(page: str) -> str:
    """Return the text of a page with all its tables made anew.

    Raises:
        SpecError: If a marker names an unknown kind.
    """
    return _TABLE.sub(
        lambda match: f"<!-- list {match[1]} -->\n\n{markdown(match[1])}\n<!-- end -->", page
    )


def _method_table() -> str:
    rows = (
        (family, f"`{'`, `'.join(sorted(names))}`") for family, names in _method_families().items()
    )
    return _table(("family", "methods"), rows)


def _method_cards() -> str:
    """Return a section for each family of methods; a variant links to the card that names it."""
    paths = declarations("methods")
    cards = {path: path.read_text(encoding="utf-8") for path in paths["cosmae"].parent.glob("*.md")}
    sections = []
    for family, names in _method_families().items():
        rows = []
        for name in sorted(names):
            card = next(path.stem for path, text in cards.items() if f"`{name}.toml`" in text)
            rows.append((f"[`{name}`](../methods/{card}.md)", str(read_toml(paths[name])["title"])))
        title = family[0].upper() + family[1:]
        sections.append(f"## {title}\n\n{_table(('method', 'content'), rows)}")
    return "\n".join(sections)


def _method_families() -> dict[str, list[str]]:
    objectives, strategies = registry.entries("objectives"), registry.entries("strategies")
    groups: dict[str, list[str]] = {}
    for name, path in declarations("methods").items():
        recipe = read_toml(path)
        used = [strategies[strategy["name"]].family for strategy in recipe.get("strategies", ())]
        alone = f"objective alone: {objectives[recipe['objective']['name']].family}"
        group = f"strategies: {' and '.join(dict.fromkeys(used))}" if used else alone
        groups.setdefault(group, []).append(name)
    return dict(sorted(groups.items()))


def _entry_table(entries: dict[str, Entry]) -> str:
    names = sorted(entries, key=lambda name: (entries[name].family, name))
    if not any(entry.family for entry in entries.values()):
        return _table(("name", "summary"), ((f"`{name}`", entries[name].summary) for name in names))
    rows = ((f"`{name}`", entries[name].family, entries[name].summary) for name in names)
    return _table(("name", "family", "summary"), rows)


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main(pages: Iterable[str]) -> None:
    """Rewrite the tables of pages, and print the pages that change."""
    for page in map(Path, pages):
        old = page.read_text(encoding="utf-8")
        new = updated(old)
        if new != old:
            page.write_text(new, encoding="utf-8")
            print(page)


if __name__ == "__main__":
    main(sys.argv[1:])
