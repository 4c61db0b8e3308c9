"""Formats the numbers of tables."""

import math

import numpy as np

ABSENT = "–"
SKETCH_WARNING = (
    "Sketch edition: small synthetic images. These numbers are no result; they say nothing about "
    "real images."
)


def percent(fraction: float | None) -> str:
    """Return a fraction in percent with two decimals; `ABSENT` for None or NaN."""
    if fraction is None or math.isnan(fraction):
        return ABSENT
    return two_decimals(100 * fraction)


def two_decimals(value: float) -> str:
    """Return a number with two decimals; empty for NaN."""
    if math.isnan(value):
        return ""
    text = f"{value:.2f}"
    return "0.00" if text == "-0.00" else text


def points(difference: float) -> str:
    """Return a difference of fractions in points with four decimals; empty for NaN."""
    if math.isnan(difference):
        return ""
    return f"{round(100 * difference, 4) + 0.0:.4f}"  # + 0.0 makes 0 of -0


def significant(value: float) -> str:
    """Return a number with four significant digits and no exponent; empty for NaN."""
    if math.isnan(value):
        return ""
    return np.format_float_positional(value, precision=4, fractional=False, unique=False, trim="-")
