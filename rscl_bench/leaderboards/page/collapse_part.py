"""Shows how far the encoders are from a collapse."""

from collections.abc import Sequence

from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.collapse import mean_spread
from rscl_bench.leaderboards.formats import ABSENT
from rscl_bench.leaderboards.page.markup import element, joined, scrolling
from rscl_bench.leaderboards.page.series import Series
from rscl_bench.leaderboards.page.views import View


def collapse_table(board: Board, view: View, series: Sequence[Series]) -> Markup:
    """Return the spread and the effective rank by row and task, or by probe after the last task.

    Args:
        board: The leaderboard.
        view: A view; its score does not matter.
        series: All rows.
    """
    tasks = board.layout.tasks
    if view.probe is None:
        columns = [(probe.name, probe.name, len(tasks)) for probe in board.layout.probes]
        title = f"After T{len(tasks)}, by probe"
    else:
        columns = [("untrained", view.probe.name, 0)]
        columns += [(f"T{n} {t.name}", view.probe.name, n) for n, t in enumerate(tasks, 1)]
        title = f"Features of {view.probe.name}"
    lines = [
        element(
            "tr",
            element("th", one.label, scope="row", class_="method"),
            *(_cell(one, probe, task) for _, probe, task in columns),
            class_="few" if one.few else None,
            data_m=one.number,
        )
        for one in series
        if one.trained
    ]
    heads = [element("th", name, scope="col") for name, _, _ in columns]
    table = element(
        "table",
        element(
            "thead", element("tr", element("th", "method", scope="col", class_="method"), *heads)
        ),
        element("tbody", *lines),
        class_="collapse",
    )
    caption = f"{title}: std · effective rank, means over seeds"
    return joined([element("p", caption, class_="caption"), scrolling(table, caption)])


def _cell(one: Series, probe: str, task: int) -> Markup:
    spread = mean_spread(one.row, probe, task)
    if spread is None:
        return element("td", ABSENT, class_="none")
    return element("td", f"{spread.std:.3f} · {spread.effective_rank:.1f}")
