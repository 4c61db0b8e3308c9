"""Shows R[t][j] of every method: tables whose cells are coloured."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.columns import score_column
from rscl_bench.leaderboards.formats import ABSENT, two_decimals
from rscl_bench.leaderboards.page.markup import element, joined, scrolling
from rscl_bench.leaderboards.page.series import Series
from rscl_bench.leaderboards.rows import encoder_key
from rscl_bench.results.schema import ProbeRecord

#: Number of colours, from pale to dark.
STEPS = 9


def heatmaps(board: Board, kind: str, series: Sequence[Series]) -> Markup:
    """Return a table for each trained row: rows are tasks, columns are probes.

    Colours are by column: from the least to the largest score of a probe in all these tables.

    Args:
        board: The leaderboard; a probe belongs to the domain of a task.
        kind: ``micro`` or ``macro``.
        series: All rows.
    """
    probes = _ordered(board)
    trained = [one for one in series if one.trained]
    values = {one.number: _matrix(board, kind, probes, one, series) for one in trained}
    ranges = {
        probe.name: _range([row[place] for rows in values.values() for row in rows])
        for place, probe in enumerate(probes)
    }
    return element(
        "div",
        *(_heatmap(board, probes, one, values[one.number], ranges) for one in trained),
        class_="heats",
    )


def _ordered(board: Board) -> list[ProbeRecord]:
    """Return the probes of the tasks' domains in the order of the tasks, then the others."""
    tasks = [task.name for task in board.layout.tasks]
    return sorted(
        board.layout.probes,
        key=lambda probe: len(tasks) if probe.task is None else tasks.index(probe.task),
    )


def _matrix(
    board: Board,
    kind: str,
    probes: Sequence[ProbeRecord],
    one: Series,
    series: Sequence[Series],
) -> list[list[float]]:
    """Return the scores before the first task and after each task, in percent."""
    encoder = encoder_key(next(iter(one.row.runs.values())).record)
    before = next(lower for lower in series if lower.row.key == encoder)
    rows = [(before, 1), *((one, task) for task in range(1, len(board.layout.tasks) + 1))]
    return [
        [source.percent(score_column(task, probe.name, kind), "mean") for probe in probes]
        for source, task in rows
    ]


def _range(values: Sequence[float]) -> tuple[float, float]:
    known = [value for value in values if not math.isnan(value)]
    return (min(known), max(known)) if known else (0.0, 0.0)


def _heatmap(
    board: Board,
    probes: Sequence[ProbeRecord],
    one: Series,
    rows: Sequence[Sequence[float]],
    ranges: Mapping[str, tuple[float, float]],
) -> Markup:
    names = ["untrained", *(f"T{n} {task.name}" for n, task in enumerate(board.layout.tasks, 1))]
    tasks = [None, *(task.name for task in board.layout.tasks)]
    head = element(
        "tr",
        element("th", "after", scope="col"),
        *(element("th", _column(probe), scope="col") for probe in probes),
    )
    body = [
        element(
            "tr",
            element("th", name, scope="row"),
            *(
                _cell(value, ranges[probe.name], task is not None and probe.task == task)
                for value, probe in zip(values, probes, strict=True)
            ),
        )
        for name, task, values in zip(names, tasks, rows, strict=True)
    ]
    table = element("table", element("thead", head), element("tbody", joined(body)))
    return element(
        "figure",
        element("figcaption", f"{one.label} ({_seeds(one)})"),
        scrolling(table, one.label),
        class_="heat few" if one.few else "heat",
        data_m=one.number,
    )


def _seeds(one: Series) -> str:
    return "1 seed" if one.row.seeds == 1 else f"{one.row.seeds} seeds"


def _column(probe: ProbeRecord) -> str:
    return f"{probe.name} (outside)" if probe.task is None else probe.name


def _cell(value: float, ends: tuple[float, float], own: bool) -> Markup:
    if math.isnan(value):
        return element("td", ABSENT, class_="none")
    low, high = ends
    share = 0.5 if high == low else (value - low) / (high - low)
    step = min(int(share * STEPS), STEPS - 1)
    return element("td", two_decimals(value), class_=f"h{step} own" if own else f"h{step}")
