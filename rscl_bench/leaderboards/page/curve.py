"""Draws the score of every method over the tasks, with intervals and references."""

import math
from collections.abc import Sequence

from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.columns import score_column
from rscl_bench.leaderboards.formats import ABSENT, two_decimals
from rscl_bench.leaderboards.page.canvas import LETTER, Canvas, spread_out, words
from rscl_bench.leaderboards.page.markup import element, joined, number, points
from rscl_bench.leaderboards.page.scale import Scale, scale_of
from rscl_bench.leaderboards.page.series import Series
from rscl_bench.leaderboards.page.views import View

_LONGEST = 28  # letters of a name
#: Mean and both ends of the interval after each task.
_Ends = list[tuple[float, float, float]]


def curves(board: Board, view: View, series: Sequence[Series]) -> Markup:
    """Return the chart of one probe and score.

    Args:
        board: The leaderboard.
        view: A view with a probe.
        series: All rows.
    """
    longest = max(len(one.short(_LONGEST)) for one in series if one.colour != "sx")
    canvas = Canvas(right=Canvas.width - LETTER * longest - 16)
    values = {one.number: _values(view, one) for one in series}
    scale = scale_of(
        [end for ends in values.values() for three in ends for end in three],
        canvas.bottom,
        canvas.top,
    )
    title = f"{view.title} over the tasks"
    if scale is None:
        return element("p", f"{title}: no score is defined.")
    drawn = [one for one in series if not all(math.isnan(m) for m, _, _ in values[one.number])]
    places = _places(canvas, len(board.layout.tasks))
    grey_first = sorted(drawn, key=lambda one: one.coloured)
    return canvas.drawing(
        title,
        f"Lines: means over seeds after each task, bands: 95 % t intervals over seeds; dashed: "
        f"references. The numbers stand in the table of methods, columns T1 to T{view.tasks}.",
        canvas.value_axis(scale, f"{view.kind}-mAP, %"),
        _task_axis(board, canvas, places),
        *(_line(one, values[one.number], places, scale) for one in grey_first),
        _labels(canvas, [one for one in drawn if one.colour != "sx"], values, scale),
    )


def _values(view: View, one: Series) -> _Ends:
    assert view.probe is not None
    columns = [score_column(task, view.probe.name, view.kind) for task in range(1, view.tasks + 1)]
    return [one.ends(column) for column in columns]


def _places(canvas: Canvas, tasks: int) -> list[float]:
    room = (canvas.right - canvas.left) / max(tasks, 1)
    return [canvas.left + (task + 0.5) * room for task in range(tasks)]


def _task_axis(board: Board, canvas: Canvas, places: Sequence[float]) -> Markup:
    longest = max(6, int(92 / len(places)))
    names = []
    for count, (task, place) in enumerate(zip(board.layout.tasks, places, strict=True), 1):
        short = task.name if len(task.name) <= longest else f"{task.name[: longest - 1]}…"
        names += [
            words(f"T{count}", place, canvas.bottom + 18, anchor="middle"),
            words(short, place, canvas.bottom + 34, anchor="middle"),
        ]
    return element("g", *names, class_="axis")


def _line(one: Series, ends: _Ends, places: Sequence[float], scale: Scale) -> Markup:
    """Return one row's line with its points and its band; gaps where a score is undefined."""
    known = [(x, *three) for x, three in zip(places, ends, strict=True) if not math.isnan(three[0])]
    middle = [(x, scale(mean)) for x, mean, _, _ in known]
    upper, lower = ([(x, scale(e[side])) for x, *e in known] for side in (2, 1))
    band = (
        element("path", d=points([*upper, *reversed(lower)]) + "Z", class_="band")
        if one.trained and upper != lower
        else ""
    )
    # A stroke of no length with round ends is a point.
    dots = "".join(f"M{number(x)} {number(y)}h0" for x, y in middle)
    texts = ", ".join(two_decimals(mean) or ABSENT for mean, _, _ in ends)
    return element(
        "g",
        element("title", f"{one.label}: {texts}"),
        band,
        element("path", d=points(middle), class_="line"),
        element("path", d=dots, class_="dots") if one.trained else "",
        class_=f"series {one.colour}" + (" few" if one.few else ""),
        data_m=one.number,
    )


def _labels(
    canvas: Canvas, labelled: Sequence[Series], values: dict[int, _Ends], scale: Scale
) -> Markup:
    """Return the names at the right ends of the lines, moved apart."""
    last = {
        one.number: next(m for m, _, _ in reversed(values[one.number]) if not math.isnan(m))
        for one in labelled
    }
    ordered = sorted(labelled, key=lambda one: (scale(last[one.number]), one.number))
    wanted = [scale(last[one.number]) for one in ordered]
    at = spread_out(wanted, 15.0, canvas.top, canvas.bottom)
    edge = canvas.right
    return joined(
        element(
            "g",
            element(
                "path", d=points([(edge - 10, y), (edge - 4, y), (edge + 8, place)]), class_="lead"
            ),
            words(one.short(_LONGEST), edge + 12, place + 4),
            class_=f"name {one.colour}",
            data_m=one.number,
        )
        for one, y, place in zip(ordered, wanted, at, strict=True)
    )
