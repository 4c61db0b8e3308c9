"""Shows costs: quality against operations and hours, and the table of all costs."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.cells import words
from rscl_bench.leaderboards.costs import COSTS, costs_by_device
from rscl_bench.leaderboards.formats import ABSENT, significant
from rscl_bench.leaderboards.keys import RowKey
from rscl_bench.leaderboards.page.markup import element, joined, scrolling
from rscl_bench.leaderboards.page.operations import teraflops
from rscl_bench.leaderboards.page.scatter import scatter
from rscl_bench.leaderboards.page.series import Series
from rscl_bench.leaderboards.page.views import View


def chart_costs(board: Board, series: Sequence[Series]) -> dict[str, dict[int, float]]:
    """Return the costs that charts show: by axis, then by number of the row.

    The hours of each device have an axis of their own, since hours of two devices do not compare.

    Args:
        board: The leaderboard.
        series: All rows.
    """
    operations = {one.number: teraflops(one.row) for one in series}
    numbers = {one.row.key: one.number for one in series}
    hours: dict[str, dict[int, float]] = {}
    costs = costs_by_device(board.rows)
    for line, own in zip(costs.itertuples(), costs["training_hours"].tolist(), strict=True):
        number = numbers[RowKey(str(line.method), str(line.precision))]
        hours.setdefault(f"hours on {line.device}", {})[number] = float(own)
    return {"operations of the training, TFLOP": operations, **dict(sorted(hours.items()))}


def cost_charts(
    view: View, series: Sequence[Series], costs: Mapping[str, Mapping[int, float]]
) -> Markup:
    """Return the charts of one view, one for each cost.

    Args:
        view: The view.
        series: All rows.
        costs: Costs from `chart_costs`.
    """
    charts = [
        element("div", element("h4", f"Against {axis}"), scatter(view, series, own, axis))
        for axis, own in costs.items()
    ]
    return element("div", *charts, class_="pair-of-charts")


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
        one = by_key[RowKey(str(line.method), str(line.precision))]
        cells = [str(line.seeds), *(_cost(line, cost) for cost in COSTS)]
        cells.append(significant(teraflops(one.row)) or ABSENT)
        lines.append(
            element(
                "tr",
                element("th", one.label, scope="row", class_="method"),
                element("td", str(line.device), class_="text"),
                *(element("td", c, class_="none" if c == ABSENT else None) for c in cells),
                data_m=one.number,
            )
        )
    heads = ["method", "device", "seeds", *map(words, COSTS), "operations, TFLOP"]
    table = element(
        "table",
        element("thead", element("tr", *(_head(head) for head in heads))),
        element("tbody", joined(lines)),
        class_="costs",
    )
    caption = "Costs of training, means over the seeds of one device"
    return joined([element("p", caption, class_="caption"), scrolling(table, caption)])


def _head(name: str) -> Markup:
    return element("th", name, scope="col", class_={"method": "method", "device": "text"}.get(name))


def _cost(line: object, cost: str) -> str:
    value = float(getattr(line, cost))
    if math.isnan(value):
        return ABSENT
    return f"{value:.0f}" if "parameters" in cost else significant(value)
