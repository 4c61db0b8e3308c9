"""Intervals over seeds and over test images, which are two spreads and are never pooled."""

import math
import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from rscl_bench.probes.metrics import resampled_maps

LEVEL = 0.95
RESAMPLES = 1000
_AT_ONCE = 100  # resamples in memory
_SEED = 0  # of the resamples: the same images for all rows of a table


class Interval(NamedTuple):
    """Both ends, in the unit of the values."""

    low: float
    high: float


class SeedTest(NamedTuple):
    """Student's t test of a mean over seeds against 0.

    Attributes:
        mean: The mean.
        interval: At `LEVEL`.
        p: Two-sided; None where all values are 0.
    """

    mean: float
    interval: Interval
    p: float | None


def t_interval(values: Sequence[float]) -> SeedTest:
    """Return mean, t interval and t test of values by seed; of differences, the paired t test.

    Args:
        values: One per seed, at least two.
    """
    with warnings.catch_warnings():
        # Values that are all equal have no spread: the interval has no width, and scipy warns.
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        test = stats.ttest_1samp(values, 0.0)
        low, high = test.confidence_interval(LEVEL)
    p = float(test.pvalue)
    return SeedTest(
        float(np.mean(values)), Interval(float(low), float(high)), None if math.isnan(p) else p
    )


def bootstrap_interval(
    labels: NDArray[np.uint8], scores: Sequence[NDArray[np.float64]], weights: NDArray[np.float64]
) -> list[tuple[Interval | None, Interval | None]]:
    """Return percentile bootstrap intervals of weighted sums of micro-mAP and of macro-mAP.

    Images are resampled, the same ones for every entry of ``scores`` and in every call with as many
    images; seeds stay as they are. A row of equal weights gives a mean over runs, a row of positive
    and negative ones a paired difference.

    Args:
        labels: ``[M, L]``, of all runs.
        scores: V arrays ``[M, L]``, one per run.
        weights: ``[C, V]``.

    Returns:
        For each of the C sums the intervals of micro-mAP and of macro-mAP at `LEVEL`, None where
        there is no second image to draw, or a resample holds no positive.
    """
    images = len(labels)
    if images < 2:
        return [(None, None)] * len(weights)

    def statistic(drawn: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        counts = np.apply_along_axis(np.bincount, axis, drawn, minlength=images)
        maps = np.stack([resampled_maps(labels, one, counts) for one in scores])
        sums: NDArray[np.float64] = np.einsum("cv,vkr->ckr", weights, maps)
        return sums

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # of NaN, see below
        low, high = stats.bootstrap(
            (np.arange(images),),
            statistic,
            n_resamples=RESAMPLES,
            batch=_AT_ONCE,
            vectorized=True,
            confidence_level=LEVEL,
            method="percentile",
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
    ends = np.stack([low, high], axis=-1)
    return [(_interval(micro), _interval(macro)) for micro, macro in ends]


def _interval(ends: NDArray[np.float64]) -> Interval | None:
    if not np.isfinite(ends).all():
        return None
    # What a table can show, so that sums taken in another order give the same bytes.
    return Interval(*(round(float(end), 6) for end in ends))
