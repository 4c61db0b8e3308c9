"""States the operations of the whole training in the unit of the page."""

import math

from rscl_bench.leaderboards.costs import training_operations
from rscl_bench.leaderboards.rows import Row


def teraflops(row: Row) -> float:
    """Return the operations of the whole training in 10¹² operations; NaN if not known."""
    if row.reference == "lower":
        return math.nan
    operations = training_operations(row)
    return math.nan if operations is None else operations / 1e12
