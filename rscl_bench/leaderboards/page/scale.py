"""Maps values to coordinates, and finds round values for the ticks of an axis."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Scale:
    """A linear map of values to coordinates.

    Attributes:
        low: Value at ``start``.
        high: Value at ``end``.
        start: First coordinate.
        end: Last coordinate; below ``start`` for an axis that points upwards.
    """

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Return the coordinate of a value; a value outside the scale is put at its end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, wanted: int = 5) -> list[float]:
        """Return round values within the scale, about as many as wanted."""
        step = _step((self.high - self.low) / wanted)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(count * step, 10) for count in range(first, last + 1)]


def scale_of(
    values: Iterable[float], start: float, end: float, from_zero: bool = False
) -> Scale | None:
    """Return a scale with round ends around values; None without a finite value.

    Args:
        values: Values to be shown; those that are not finite are left out.
        start: First coordinate.
        end: Last coordinate.
        from_zero: Whether the scale begins at 0.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    low, high = (0.0 if from_zero else min(finite)), max(finite)
    if high - low <= 1e-9 * max(1.0, abs(high)):
        high, low = high + 1.0, (0.0 if from_zero else low - 1.0)
    step = _step((high - low) / 5)
    return Scale(math.floor(low / step) * step, math.ceil(high / step) * step, start, end)


def tick_text(value: float) -> str:
    """Return the label of a tick, without needless zeros."""
    return f"{value:.10g}"


def _step(rough: float) -> float:
    """Return the next 1, 2 or 5 times a power of 10."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(
        factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= 0.999 * rough
    )
