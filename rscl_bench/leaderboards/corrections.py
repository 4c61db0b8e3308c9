"""Corrects the p values of many comparisons; both corrections return adjusted p values.

A comparison survives a correction at a rate if its adjusted p value is at most the rate.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

#: The rate that all corrections of a table have.
RATE = 0.05


def benjamini_hochberg(p: Sequence[float]) -> NDArray[np.float64]:
    """Return adjusted p values that bound the expected share of false separations.

    Source: Y. Benjamini and Y. Hochberg, "Controlling the False Discovery Rate", Journal of the
    Royal Statistical Society B 57, 1995.

    Args:
        p: p values of one family.
    """
    return np.asarray(false_discovery_control(np.asarray(p, dtype=np.float64), method="bh"))


def holm(p: Sequence[float]) -> NDArray[np.float64]:
    """Return adjusted p values that bound the probability of a single false separation.

    Source: S. Holm, "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal
    of Statistics 6, 1979. The i-th smallest of m values is multiplied by m − i + 1; no adjusted
    value is below that of a smaller value.

    Args:
        p: p values of one family.
    """
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return adjusted
