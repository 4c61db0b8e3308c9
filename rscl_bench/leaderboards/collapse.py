"""Averages the two numbers of collapse over the seeds of a row."""

from statistics import fmean
from typing import NamedTuple

from rscl_bench.leaderboards.rows import Row


class Spread(NamedTuple):
    """Means over seeds of the two numbers of `rscl_bench.results.schema.SpreadRecord`."""

    std: float
    effective_rank: float


def mean_spread(row: Row, probe: str, task: int) -> Spread | None:
    """Return the spread of the probed features after a task; None if one run lacks it.

    Args:
        row: A row of the leaderboard other than pixel statistics.
        probe: Name of the probe.
        task: Number of trained tasks; 0 for the untrained encoder.
    """
    rows = [run.record.spread for run in row.runs.values()]
    measured = [None if spread is None else spread[task].get(probe) for spread in rows]
    known = [spread for spread in measured if spread is not None]
    if len(known) < len(measured):
        return None
    return Spread(fmean(one.std for one in known), fmean(one.effective_rank for one in known))
