"""The first difference between two JSON values."""

import math
from typing import Any

#: Tolerance for recomputed scores.
ROUNDING = 1e-9


def first_difference(field: str, found: Any, expected: Any, tolerance: float = 0.0) -> str | None:
    """Return the name of the first field of two JSON values that differs, None if none does.

    Args:
        field: Name of the values.
        found: One of them.
        expected: The other.
        tolerance: What numbers may differ by, for rounding.
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
