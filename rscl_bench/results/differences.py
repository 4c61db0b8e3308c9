"""Finds the first difference between two JSON values."""

import math
from typing import Any

#: Largest difference that rounding makes between a stored score and the recomputed score.
ROUNDING = 1e-9


def first_difference(field: str, actual: Any, expected: Any, tolerance: float = 0.0) -> str | None:
    """Return the name of the first field that differs; None if the two JSON values are equal.

    Args:
        field: Name of the two values. The name of an inner field is appended after a dot.
        actual: First value.
        expected: Second value.
        tolerance: Largest absolute difference at which two numbers count as equal.
    """
    if isinstance(actual, dict) and isinstance(expected, dict):
        for name in sorted({*actual, *expected}):
            if (name in actual) != (name in expected):
                return f"{field}.{name}"
            inner = first_difference(f"{field}.{name}", actual[name], expected[name], tolerance)
            if inner:
                return inner
        return None
    if tolerance and isinstance(actual, float | int) and isinstance(expected, float | int):
        return None if math.isclose(actual, expected, abs_tol=tolerance) else field
    return None if actual == expected else field
