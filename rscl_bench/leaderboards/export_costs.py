"""The costs of exports and figures: operations anywhere, hours on one device alone."""

import math
from collections.abc import Sequence

from rscl_bench.errors import SpecError
from rscl_bench.leaderboards.costs import costs_by_device
from rscl_bench.leaderboards.keys import RowKey
from rscl_bench.leaderboards.rows import Row


def operations_of(row: Row) -> float:
    """Return the operations per image of a step in 10⁹, with and without gradient.

    The step is one of the second task, so that the strategies' operations are part of it. NaN if
    the row has strategies whose operations are not counted, as in records of versions before 0.4.0.
    """
    record = next(iter(row.runs.values())).record
    flops, strategies = record.flops, record.identity.method.get("strategies")
    if flops is None or (strategies and flops.strategies_with_gradient is None):
        return math.nan
    return (flops.total_with_gradient() + flops.total_without_gradient()) / 1e9


def hours_of(rows: Sequence[Row]) -> dict[RowKey, float]:
    """Return the hours of training of trained rows, means over seeds.

    Raises:
        SpecError: If the rows ran on several devices.
    """
    devices = {device for row in rows for device in row.devices}
    if len(devices) > 1:
        raise SpecError(
            f"These runs are from {len(devices)} devices ({', '.join(sorted(devices))}), and hours "
            "compare within one device only; choose methods of one device, or take operations."
        )
    frame = costs_by_device(rows)
    keys = zip(frame["method"].astype(str), frame["precision"].astype(str), strict=True)
    return dict(zip((RowKey(*key) for key in keys), frame["training_hours"], strict=True))
