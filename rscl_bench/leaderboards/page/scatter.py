"""Draws quality against a cost, with the Pareto front."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from rscl_bench.leaderboards.formats import significant, two_decimals
from rscl_bench.leaderboards.page.canvas import LETTER, Canvas, words
from rscl_bench.leaderboards.page.markup import element, joined, points
from rscl_bench.leaderboards.page.scale import Scale, scale_of
from rscl_bench.leaderboards.page.series import Series
from rscl_bench.leaderboards.page.views import View

_CANVAS = Canvas(right=600.0)
_LINE = 12.0


@dataclass(frozen=True)
class Point:
    """A row in the chart: its cost, its mean, and both ends of its interval over seeds."""

    series: Series
    cost: float
    quality: float
    low: float
    high: float


def scatter(view: View, series: Sequence[Series], costs: Mapping[int, float], axis: str) -> Markup:
    """Return the chart, and the names of the rows that it cannot show.

    Args:
        view: The view, whose main number is the quality.
        series: All rows.
        costs: Costs by number of the row; rows without a cost are named below the chart.
        axis: Name of the cost, with its unit.
    """
    trained = [one for one in series if one.trained]
    shown, absent = [], []
    for one in trained:
        quality, low, high = one.ends(view.quality)
        cost = costs.get(one.number, math.nan)
        if math.isnan(cost) or math.isnan(quality):
            absent.append(one.label)
        else:
            shown.append(Point(one, cost, quality, low, high))
    missing = element("p", f"Not known for: {', '.join(absent)}.", class_="missing")
    if not shown:
        return missing
    return joined([_drawn(view, shown, axis), *([missing] if absent else [])])


def front_of(shown: Sequence[Point]) -> list[Point]:
    """Return the points that no other point beats in both means, by rising cost.

    A point is beaten by one that costs no more and is no worse, and differs from it in one of both.
    """
    return sorted(
        (
            one
            for one in shown
            if not any(
                other.cost <= one.cost
                and other.quality >= one.quality
                and (other.cost, other.quality) != (one.cost, one.quality)
                for other in shown
            )
        ),
        key=lambda one: (one.cost, one.series.number),
    )


def _drawn(view: View, shown: Sequence[Point], axis: str) -> Markup:
    canvas = _CANVAS
    across = scale_of([p.cost for p in shown], canvas.left, canvas.right, from_zero=True)
    up = scale_of([e for p in shown for e in (p.low, p.high)], canvas.bottom, canvas.top)
    assert across is not None
    assert up is not None
    front = front_of(shown)
    title = f"{view.quality_name}, against {axis}"
    return canvas.drawing(
        title,
        "Points: means over seeds, with 95 % t intervals over seeds. The line joins the methods "
        "that no other method beats in both means: "
        f"{', '.join(p.series.label for p in front)}. The numbers stand in the table of methods.",
        canvas.value_axis(up, f"{view.kind}-mAP, %"),
        canvas.cost_axis(across, axis),
        element("path", d=points(_steps(front, across, up)), class_="front"),
        *(_point(p, p in front, across, up, axis) for p in reversed(shown)),
        _labels(shown, front, across, up),
    )


def _steps(front: Sequence[Point], across: Scale, up: Scale) -> list[tuple[float, float]]:
    """Return the corners of the front: quality changes where the next point's cost is reached."""
    corners: list[tuple[float, float]] = []
    for point in front:
        if corners:
            corners.append((across(point.cost), corners[-1][1]))
        corners.append((across(point.cost), up(point.quality)))
    return corners


def _point(point: Point, on_front: bool, across: Scale, up: Scale, axis: str) -> Markup:
    x, y, one = across(point.cost), up(point.quality), point.series
    name = f"{one.label}: {two_decimals(point.quality)} % at {significant(point.cost)} {axis}"
    whisker = (
        element("line", x1=x, x2=x, y1=up(point.low), y2=up(point.high), class_="whisker")
        if point.high > point.low
        else ""
    )
    ring = element("circle", cx=x, cy=y, r=8, class_="ring") if on_front else ""
    return element(
        "g",
        element("title", name),
        whisker,
        ring,
        element("circle", cx=x, cy=y, r=4.5, class_="dot"),
        class_=f"point {one.colour}" + (" few" if one.few else ""),
        data_m=one.number,
    )


def _labels(shown: Sequence[Point], front: Sequence[Point], across: Scale, up: Scale) -> Markup:
    """Return the names of the points, as far as there is room; those of the front come first."""
    dots = [(across(p.cost), up(p.quality)) for p in shown]
    taken = [(x - 7, y - 7, x + 7, y + 7) for x, y in dots]
    written = []
    wanted = [*front, *(p for p in shown if p not in front)]
    for point in wanted:
        label = point.series.short(26)
        box = _free(across(point.cost), up(point.quality), LETTER * len(label), taken)
        if box is not None:
            taken.append(box)
            written.append(
                element(
                    "g",
                    words(label, box[0], box[3] - 3),
                    class_=f"name {point.series.colour}",
                    data_m=point.series.number,
                )
            )
    return joined(written)


_Box = tuple[float, float, float, float]


def _free(x: float, y: float, width: float, taken: Sequence[_Box]) -> _Box | None:
    """Return the first place beside a point where a name hides nothing; None if there is none."""
    for left, top in (
        (x + 12, y - _LINE / 2),
        (x - 12 - width, y - _LINE / 2),
        (x + 6, y - 9 - _LINE),
        (x + 6, y + 9),
        (x - 6 - width, y - 9 - _LINE),
        (x - 6 - width, y + 9),
    ):
        box = (left, top, left + width, top + _LINE)
        inside = _CANVAS.left < left and box[2] < _CANVAS.width and _CANVAS.top - 8 < top
        if inside and box[3] < _CANVAS.bottom and not any(_overlap(box, other) for other in taken):
            return box
    return None


def _overlap(one: _Box, other: _Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
