"""Makes the page that lists the leaderboards of a folder."""

import csv
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup

from rscl_bench.leaderboards.formats import ABSENT, SKETCH_WARNING
from rscl_bench.leaderboards.page.document import document
from rscl_bench.leaderboards.page.markup import element, scrolling
from rscl_bench.leaderboards.summary import Summary, summary

#: Number of rows of a leaderboard that the list shows.
_ROWS = 8


def index_page(out: Path) -> str:
    """Return the page that lists all leaderboards below a folder, with their first rows.

    Args:
        out: Folder of the leaderboards, with their ``leaderboard.csv``.
    """
    sections = [
        _table(path.parent.relative_to(out), path)
        for path in sorted(out.glob("*/*/leaderboard.csv"))
    ]
    lead = (
        "Each table holds the runs of one scenario, edition and protocol. Scores are mean average "
        "precision in %, after the last task: mean over seeds ± half the 95 % t interval."
    )
    content = [
        element("header", element("h1", "Leaderboards"), element("p", lead, class_="lead")),
        element("main", *sections),
        element("footer", element("p", "Built from run records by rscl-bench.")),
    ]
    return document("rscl-bench leaderboards", content, "")


def _table(folder: Path, path: Path) -> Markup:
    """Return the section of one leaderboard; only its links if another program wrote its CSV."""
    scenario, protocol = folder.parts
    here = folder.as_posix()
    page = "index.html" if path.with_name("index.html").is_file() else "leaderboard.md"
    heading = element(
        "h2", element("a", f"{scenario}: {protocol}", href=f"{quote(here)}/{page}"), id=quote(here)
    )
    try:
        short = summary(path)
    except (KeyError, IndexError, OSError, ValueError, csv.Error):
        return element("section", heading)
    warning = [element("p", SKETCH_WARNING, class_="warning")] if short.sketch else []
    left = len(short.rows) - _ROWS
    more = [element("p", f"and {left} more rows", class_="missing")] if left > 0 else []
    return element("section", heading, *warning, _rows(short, here), *more)


def _rows(short: Summary, label: str) -> Markup:
    head = element("tr", *(element("th", name, scope="col") for name in short.columns))
    lines = [
        element(
            "tr",
            element("th", name, scope="row", class_="method"),
            *(element("td", cell, class_="none" if cell == ABSENT else None) for cell in cells),
        )
        for name, *cells in short.rows[:_ROWS]
    ]
    table = element("table", element("thead", head), element("tbody", *lines), class_="costs")
    return scrolling(table, f"First rows of {label}")
