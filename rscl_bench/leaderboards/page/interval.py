"""Draws both intervals of a score in one line of the table."""

import math

from markupsafe import Markup

from rscl_bench.leaderboards.page.markup import element, number
from rscl_bench.leaderboards.page.scale import Scale

WIDTH = 108.0


def interval_bar(
    scale: Scale, ends: tuple[float, float, float], images: tuple[float, float] | None
) -> Markup:
    """Return a point, a thin line over the seeds and a thick one over the test images.

    The numbers stand beside it in the table, so that it is hidden from screen readers.

    Args:
        scale: Scale of the column.
        ends: Mean, and both ends of the t interval over seeds.
        images: Ends of the interval over test images; None if not known.
    """
    mean, low, high = ends
    if math.isnan(mean):
        return Markup("")
    parts = []
    if images is not None:
        parts.append(element("path", d=_flat(scale, *images), class_="images"))
    if high > low:
        parts.append(element("path", d=_flat(scale, low, high), class_="seeds"))
    dot = element("circle", cx=scale(mean), cy=7, r=3)
    return element(
        "svg",
        *parts,
        dot,
        viewBox=f"0 0 {number(WIDTH)} 14",
        width=WIDTH,
        height=14,
        class_="bar",
        aria_hidden="true",
    )


def _flat(scale: Scale, low: float, high: float) -> str:
    return f"M{number(scale(low))} 7H{number(scale(high))}"
