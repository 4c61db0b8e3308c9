"""Quality against what it costs: operations, or hours on one device, with the Pareto front."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from matplotlib.figure import Figure

from rscl_bench.errors import SpecError
from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.columns import domain_column, score_column
from rscl_bench.leaderboards.export_choice import Kind, board_title, percentage
from rscl_bench.leaderboards.export_costs import hours_of, operations_of
from rscl_bench.leaderboards.rows import Row
from rscl_bench.plots.style import GREY, drawing, fix_layout, looks, new_figure
from rscl_bench.results.schema import ProbeRecord

Cost = Literal["operations", "hours"]
_COST_TITLES: dict[Cost, str] = {
    "operations": "operations per image of a training step in GFLOP",
    "hours": "hours of training",
}


@dataclass(frozen=True)
class Point:
    """One method in the plane of cost and quality.

    Attributes:
        label: Name of the row.
        cost: Operations per image in 10⁹, or hours.
        quality: Mean score in percent.
        half: Half the width of its 95 % t interval over seeds; NaN for one seed.
        front: Whether no other method is at least as good and as cheap, and better in one of both.
    """

    label: str
    cost: float
    quality: float
    half: float
    front: bool


def points(
    board: Board, rows: Sequence[Row], probe: ProbeRecord | None, kind: Kind, cost: Cost
) -> tuple[list[Point], list[str]]:
    """Return the methods that have a cost and a quality, and the names of the others.

    Args:
        board: The leaderboard.
        rows: Trained rows.
        probe: The probe whose score after the last task is the quality. None takes the final
            average over the probes of the tasks' domains.
        kind: ``micro`` or ``macro``.
        cost: ``operations``: of objective and strategies in the second task, with and without
            gradient; or ``hours``, which needs that all rows ran on one device.

    Raises:
        SpecError: If hours are asked for and the rows ran on several devices.
    """
    costs = hours_of(rows) if cost == "hours" else {row.key: operations_of(row) for row in rows}
    if probe is None:
        column = domain_column("final_average", kind)
    else:
        column = score_column(len(board.layout.tasks), probe.name, kind)
    known, absent = [], []
    for row in rows:
        mean, half = (percentage(board, row, f"{column}.{part}") for part in ("mean", "ci95"))
        if math.isnan(mean) or math.isnan(costs[row.key]):
            absent.append(board.label(row))
        else:
            known.append((board.label(row), costs[row.key], mean, half))
    front = pareto_front([(price, mean) for _, price, mean, _ in known])
    return [Point(*one, on) for one, on in zip(known, front, strict=True)], absent


def pareto_front(values: Sequence[tuple[float, float]]) -> list[bool]:
    """Return for every pair of cost and quality whether no other pair dominates it."""
    return [
        not any(
            price <= own_price and good >= own and (price, good) != (own_price, own)
            for price, good in values
        )
        for own_price, own in values
    ]


def draw_pareto(
    board: Board, rows: Sequence[Row], probe: ProbeRecord | None, kind: Kind, cost: Cost
) -> Figure:
    """Draw quality against cost; filled markers and a line show the Pareto front.

    Raises:
        SpecError: If no row has both, or as in `points`.
    """
    known, absent = points(board, rows, probe, kind, cost)
    if not known:
        raise SpecError(
            f"None of these records has both a score and {cost}, so there is nothing to draw; "
            "records of versions before 0.4.0 do not count the operations of strategies, so try "
            "`--cost hours`."
        )
    with drawing():
        figure = new_figure(6.0, 2.9 + 0.05 * len(known))
        axes = figure.add_subplot()
        front = sorted((p for p in known if p.front), key=lambda p: (p.cost, p.quality))
        steps = [(p.cost, p.quality) for p in front]
        axes.step(*zip(*steps, strict=True), where="post", color=GREY, lw=1.0, zorder=1)
        for point, look in zip(known, looks(len(known)), strict=True):
            axes.errorbar(
                point.cost,
                point.quality,
                None if math.isnan(point.half) else point.half,
                fmt=look.marker,
                color=look.colour,
                markerfacecolor=look.colour if point.front else "white",
                markersize=5.5,
                elinewidth=0.7,
                label=point.label + (" (front)" if point.front else ""),
                zorder=2,
            )
        axes.margins(0.08)
        where = f" on {rows[0].devices[0]}" if cost == "hours" else ""
        axes.set_xlabel(f"{_COST_TITLES[cost]}{where}")
        axes.set_ylabel(_quality_title(probe, kind))
        axes.set_title(f"{board_title(board)}\nfilled markers and line: Pareto front of the means")
        figure.legend(loc="outside right upper")
        if absent:
            figure.supxlabel(_absent_line(absent, cost), fontsize=6.5)
        fix_layout(figure)
    return figure


def _quality_title(probe: ProbeRecord | None, kind: Kind) -> str:
    if probe is None:
        return f"final average {kind}-mAP over domains in %"
    return f"{probe.name} {kind}-mAP after the last task in %"


def _absent_line(absent: Sequence[str], cost: Cost) -> str:
    shown = ", ".join(absent[:6]) + (", …" if len(absent) > 6 else "")
    return f"not shown, since their records lack the {cost} or the score: {shown}"
