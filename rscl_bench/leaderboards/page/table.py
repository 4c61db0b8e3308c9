"""Makes the table of methods: a line per row, and columns for each view."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.cells import bracketed, means, rank_cell, words
from rscl_bench.leaderboards.columns import (
    DOMAIN_METRICS,
    OUTSIDE_METRICS,
    domain_column,
    outside_column,
    score_column,
)
from rscl_bench.leaderboards.costs import costs_by_row
from rscl_bench.leaderboards.formats import ABSENT, significant
from rscl_bench.leaderboards.page.details import details_of
from rscl_bench.leaderboards.page.interval import WIDTH, interval_bar
from rscl_bench.leaderboards.page.markup import element, joined, scrolling
from rscl_bench.leaderboards.page.notes import notes_of
from rscl_bench.leaderboards.page.operations import teraflops
from rscl_bench.leaderboards.page.scale import Scale, tick_text
from rscl_bench.leaderboards.page.series import Series, shown_percent
from rscl_bench.leaderboards.page.views import View, views
from rscl_bench.leaderboards.rows import Row

_NO_SORT = "bars"
_LONG = 30  # letters of a name that may take several lines


@dataclass(frozen=True)
class Column:
    """A column of the table.

    Attributes:
        title: Its head.
        cells: Its cells, one for each row.
        marks: Classes of its cells; empty for a column that all views show.
        name: Name of the column in ``leaderboard.csv``, without its part; empty if there is none.
    """

    title: str
    cells: Sequence[str]
    marks: str = ""
    name: str = ""


def methods_table(board: Board, series: Sequence[Series]) -> Markup:
    """Return the table of methods.

    Args:
        board: The leaderboard.
        series: All rows.
    """
    columns = _columns(board, series)
    heads = [
        element("th", "method", scope="col", class_="method"),
        *(
            element(
                "th",
                column.title,
                scope="col",
                class_=column.marks or None,
                data_name=column.name or None,
            )
            for column in columns
        ),
    ]
    lines = [
        _line(board, one, [(c.cells[place], c.marks) for c in columns])
        for place, one in enumerate(series)
    ]
    table = element(
        "table",
        element("thead", element("tr", *heads)),
        element("tbody", *lines),
        id="methods-table",
        aria_label="Methods",
    )
    return scrolling(table, "Table of methods", "scroll wide")


def _line(board: Board, one: Series, cells: Sequence[tuple[str, str]]) -> Markup:
    name = element(
        "details",
        element(
            "summary",
            element("span", class_=f"chip {one.colour}"),
            one.label,
            class_="long" if len(one.label) > _LONG else "short",
        ),
        element("div", details_of(board, one.row), class_="more"),
    )
    kind = one.row.reference or ("few" if one.few else "")
    return element(
        "tr",
        element("th", name, scope="row", class_="method"),
        *(
            element(
                "td", cell, class_=" ".join(filter(None, (m, "none" * (cell == ABSENT)))) or None
            )
            for cell, m in cells
        ),
        class_=kind or None,
        data_m=one.number,
        data_seeds=one.row.seeds,
    )


def _columns(board: Board, series: Sequence[Series]) -> list[Column]:
    rows = board.rows
    seeds = [ABSENT if row.seeds is None else str(row.seeds) for row in rows]
    columns = [Column("seeds", seeds, name="seeds")]
    for view in views(board):
        columns += (
            _domain_columns(board, view, series)
            if view.probe is None
            else _probe_columns(board, view, series)
        )
    hours = [significant(hours) or ABSENT for hours in costs_by_row(rows)["training_hours"]]
    operations = [significant(teraflops(row)) or ABSENT for row in rows]
    return [
        *columns,
        Column("operations, TFLOP", operations),
        Column("hours", hours, name="training_hours"),
        Column("mark", [row.mark or ABSENT for row in rows], "notes", "mark"),
        Column("notes", [_notes(board, row) for row in rows], "notes"),
    ]


def _notes(board: Board, row: Row) -> Markup:
    return joined(element("abbr", note.word, title=note.meaning) for note in notes_of(board, row))


def _probe_columns(board: Board, view: View, series: Sequence[Series]) -> list[Column]:
    """Return rank, scores after each task, both intervals and the metrics of an outside probe."""
    assert view.probe is not None
    probe, rows = view.probe.name, board.rows
    columns = []
    if view.kind == "micro":
        ranked = [rank_cell(board, row, probe) for row in rows]
        columns.append(Column("rank", ranked, view.marks, f"{probe}.rank"))
    for number, task in enumerate(board.layout.tasks, 1):
        name = score_column(number, probe, view.kind)
        last = " final" if number == view.tasks else ""
        title = f"T{number} {task.name}"
        columns.append(Column(title, means(board, rows, name), view.marks + last, name))
    images = [bracketed(board.bootstrap_interval(row, probe, view.kind)) for row in rows]
    name = f"{view.quality}.image"
    columns.append(Column(f"T{view.tasks}, test images", images, view.marks, name))
    columns.append(_bars(board, view, series))
    if view.probe.task is None:
        for metric in OUTSIDE_METRICS[1:]:
            name = outside_column(probe, metric, view.kind)
            columns.append(Column(words(metric), means(board, rows, name), view.marks, name))
    return columns


def _domain_columns(board: Board, view: View, series: Sequence[Series]) -> list[Column]:
    """Return the continual metrics, and the last score of each probe."""
    columns = []
    for metric in DOMAIN_METRICS:
        name = domain_column(metric, view.kind)
        last = " final" if metric == "final_average" else ""
        cells = means(board, board.rows, name)
        columns.append(Column(words(metric), cells, view.marks + last, name))
    columns.insert(1, _bars(board, view, series))
    for probe in board.layout.probes:
        name = score_column(view.tasks, probe.name, view.kind)
        cells = means(board, board.rows, name)
        columns.append(Column(f"T{view.tasks}: {probe.name}", cells, view.marks, name))
    return columns


def _bars(board: Board, view: View, series: Sequence[Series]) -> Column:
    """Return the drawing of both intervals; its head states the ends of the scale."""
    ends = [one.ends(view.quality) for one in series]
    images = [_image_ends(board, view, row) for row in board.rows]
    values = [end for three in ends for end in three] + [e for two in images if two for e in two]
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Column("intervals", [ABSENT] * len(ends), f"{view.marks} {_NO_SORT}")
    low = math.floor(min(known))
    scale = Scale(low, max(low + 1, math.ceil(max(known))), 4.0, WIDTH - 4.0)
    cells = [interval_bar(scale, t, two) or ABSENT for t, two in zip(ends, images, strict=True)]
    title = f"{tick_text(scale.low)} to {tick_text(scale.high)}"
    return Column(title, cells, f"{view.marks} {_NO_SORT}")


def _image_ends(board: Board, view: View, row: Row) -> tuple[float, float] | None:
    if view.probe is None:
        return None
    found = board.bootstrap_interval(row, view.probe.name, view.kind)
    return None if found is None else (shown_percent(found.low), shown_percent(found.high))
