"""The first difference between two JSON values."""

import math
from typing import Any

#: Tolerance for recomputed scores.
ROUNDING = 1e-9


def first_difference(field: str, found: Any, expected: Any, tolerance: float = 0.0) -> str | None:
    """Return the name of the first field in which two JSON values differ, None if they are equal.

    Args:
        field: Name of both values; names of inner fields follow after a dot.
        found: First value.
        expected: Second value.
        tolerance: Largest difference of equal numbers.
    """
    if isinstance(found, dict) and isinstance(expected, dict):
        for name in sorted({*found, *expected}):
            if (name in found) != (name in expected):
                return f"{field}.{name}"
            inner = first_difference(f"{field}.{name}", found[name], expected[name], tolerance)
            if inner:
                return inner
        return None
    if tolerance and isinstance(found, float | int) and isinstance(expected, float | int):
        return None if math.isclose(found, expected, abs_tol=tolerance) else field
    return None if found == expected else field
