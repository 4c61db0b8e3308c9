"""Draws what charts share: the drawing with its description, axes, and labels that give way."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from scipy.optimize import isotonic_regression

from rscl_bench.leaderboards.page.markup import element, number
from rscl_bench.leaderboards.page.scale import Scale, tick_text

#: Width of a letter in pixels, as wide as in names of wide letters in common fonts of that size.
LETTER = 8.0


@dataclass(frozen=True)
class Canvas:
    """A drawing and the area of its data, in pixels.

    Attributes:
        width: Width of the drawing.
        height: Height of the drawing.
        left: Left end of the data.
        right: Right end of the data.
        top: Upper end of the data.
        bottom: Lower end of the data.
    """

    width: float = 640.0
    height: float = 380.0
    left: float = 52.0
    right: float = 460.0
    top: float = 16.0
    bottom: float = 322.0

    def drawing(self, title: str, description: str, *parts: str, kind: str = "chart") -> Markup:
        """Return the drawing in a region that scrolls where the screen is narrow.

        Args:
            title: Name of the chart.
            description: What it shows, for readers who do not see it.
            *parts: Content.
            kind: Class of the drawing; a ``chart`` grows with the screen.
        """
        size = f"0 0 {number(self.width)} {number(self.height)}"
        svg = element(
            "svg",
            element("title", title),
            element("desc", description),
            *parts,
            viewBox=size,
            width=self.width,
            height=self.height,
            role="img",
            class_=kind,
            aria_label=f"{title}. {description}",
        )
        return element("div", svg, class_="scroll", role="region", aria_label=title, tabindex=0)

    def value_axis(self, scale: Scale, label: str) -> Markup:
        """Return horizontal lines with values at the left, and the name of the axis."""
        lines = [
            element(
                "g",
                element("line", x1=self.left, x2=self.right, y1=scale(tick), y2=scale(tick)),
                words(tick_text(tick), self.left - 8, scale(tick) + 4, anchor="end"),
            )
            for tick in scale.ticks()
        ]
        middle = (self.top + self.bottom) / 2
        name = words(
            label,
            0.0,
            0.0,
            anchor="middle",
            transform=f"translate(13 {number(middle)}) rotate(-90)",
        )
        return element("g", *lines, name, class_="axis")

    def cost_axis(self, scale: Scale, label: str) -> Markup:
        """Return vertical lines with values below, and the name of the axis."""
        lines = [
            element(
                "g",
                element("line", x1=scale(tick), x2=scale(tick), y1=self.top, y2=self.bottom),
                words(tick_text(tick), scale(tick), self.bottom + 18, anchor="middle"),
            )
            for tick in scale.ticks()
        ]
        name = words(label, (self.left + self.right) / 2, self.bottom + 42, anchor="middle")
        return element("g", *lines, name, class_="axis")


def words(
    content: str, x: float, y: float, anchor: str | None = None, **attributes: str | None
) -> Markup:
    """Return a text of a drawing at its baseline."""
    placed = {} if "transform" in attributes else {"x": x, "y": y}
    return element("text", content, text_anchor=anchor, **placed, **attributes)


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Return the nearest places to the wanted ones that are at least a gap apart.

    Args:
        wanted: Wanted coordinates, rising.
        gap: Least distance of two places; it shrinks if the room is too small.
        low: Least coordinate.
        high: Largest coordinate.
    """
    if not wanted:
        return []
    last = len(wanted) - 1
    gap = min(gap, (high - low) / max(last, 1))
    # Less its share of the gaps, a place must be no lower than the one before it: the nearest such
    # places in the least-squares sense are an isotonic regression.
    shifted = [place - number * gap for number, place in enumerate(wanted)]
    fitted = isotonic_regression(shifted).x
    return [
        min(max(float(place), low), high - last * gap) + number * gap
        for number, place in enumerate(fitted)
    ]
