"""Canonical JSON: equal values have equal bytes, so that a value can be hashed."""

import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Return the canonical JSON text of a value: sorted keys, no spaces, ASCII.

    Raises:
        ValueError: If the value holds NaN or an infinity, which JSON cannot express.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
