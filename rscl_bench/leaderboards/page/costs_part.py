"""Shows costs: quality against operations and hours, and the table of all costs."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.cells import words
from rscl_bench.leaderboards.costs import COSTS, costs_by_device
from rscl_bench.leaderboards.formats import ABSENT, significant
from rscl_bench.leaderboards.page.markup import element, joined
from rscl_bench.leaderboards.page.operations import teraflops
from rscl_bench.leaderboards.page.scatter import scatter
from rscl_bench.leaderboards.page.series import Series
from rscl_bench.leaderboards.page.views import View


def cost_charts(board: Board, view: View, series: Sequence[Series]) -> Markup:
    """Return the charts of one view: against operations, and against the hours of each device.

    Args:
        board: The leaderboard.
        view: The view.
        series: All rows.
    """
    operations = {one.number: teraflops(one.row) for one in series}
    known = {number: value for number, value in operations.items() if not math.isnan(value)}
    charts = [
        _chart(
            "Against operations",
            scatter(board, view, series, known, "operations of the training, TFLOP"),
        )
    ]
    for device, hours in _hours(board, series).items():
        chart = scatter(board, view, series, hours, f"hours on {device}")
        charts.append(_chart(f"Against hours on {device}", chart))
    return element("div", *charts, class_="pair-of-charts")


def _chart(title: str, content: Markup) -> Markup:
    return element("div", element("h4", title), content)


def _hours(board: Board, series: Sequence[Series]) -> dict[str, dict[int, float]]:
    """Return the hours by device and row; two devices are never in one chart."""
    numbers = {one.row.key: one.number for one in series}
    found: dict[str, dict[int, float]] = {}
    for line in costs_by_device(board.rows).itertuples():
        number = numbers[(str(line.method), str(line.precision))]  # type: ignore[index]
        found.setdefault(str(line.device), {})[number] = float(line.training_hours)
    return dict(sorted(found.items()))


def cost_table(board: Board, series: Sequence[Series]) -> Markup:
    """Return the table of all costs: a line per trained row and device.

    Args:
        board: The leaderboard.
        series: All rows.
    """
    by_key = {one.row.key: one for one in series}
    costs = costs_by_device(board.rows)
    lines = []
    for line in costs.itertuples():
        one = by_key[(str(line.method), str(line.precision))]  # type: ignore[index]
        cells = [str(line.device), str(line.seeds), *(_cost(line, cost) for cost in COSTS)]
        cells.append(significant(teraflops(one.row)) or ABSENT)
        lines.append(
            element(
                "tr",
                element("th", one.label, scope="row", class_="method"),
                *(element("td", c, class_="none" if c == ABSENT else None) for c in cells),
                data_m=one.number,
            )
        )
    heads = ["method", "device", "seeds", *map(words, COSTS), "operations, TFLOP"]
    table = element(
        "table",
        element("caption", "Costs of training, means over the seeds of one device"),
        element("thead", element("tr", *(_head(head) for head in heads))),
        element("tbody", joined(lines)),
        class_="costs",
    )
    return element("div", table, class_="scroll", role="region", tabindex=0, aria_label="Costs")


def _head(name: str) -> Markup:
    return element("th", name, scope="col", class_="method" if name == "method" else None)


def _cost(line: object, cost: str) -> str:
    value = float(getattr(line, cost))
    if math.isnan(value):
        return ABSENT
    return f"{value:.0f}" if "parameters" in cost else significant(value)
