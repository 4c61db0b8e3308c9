"""Computes intervals over seeds and intervals over test images.

The two kinds of interval show different spreads and are never pooled.
"""

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
_BATCH = 100  # resamples in memory at the same time
_SEED = 0  # seed of the resamples: all rows of a table get the same resamples


class Interval(NamedTuple):
    """The two ends of an interval, in the unit of the values."""

    low: float
    high: float


class SeedTest(NamedTuple):
    """Student's t test of a mean over seeds against 0.

    Attributes:
        mean: Mean over seeds.
        interval: Confidence interval of the mean at `LEVEL`.
        p: Two-sided p value; None if all values are 0.
    """

    mean: float
    interval: Interval
    p: float | None


def t_interval(values: Sequence[float]) -> SeedTest:
    """Return mean, t interval and t test of values by seed.

    If the values are differences of two methods by seed, the test is the paired t test.

    Args:
        values: One value per seed, at least two.
    """
    with warnings.catch_warnings():
        # For equal values the interval has no width, and scipy warns.
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

    Images are resampled; runs are not. All runs get the same resamples, and so do all calls with an
    equal number of images. A row of equal weights gives a mean over runs. A row of positive and
    negative weights gives a paired difference.

    Args:
        labels: Labels of the images, ``[M, L]``, 0 or 1; all runs have these labels.
        scores: V arrays ``[M, L]``, one per run.
        weights: ``[C, V]``: the weights of C sums over the V runs.

    Returns:
        For each of the C sums, the intervals of micro-mAP and of macro-mAP at `LEVEL`. An interval
        is None if there is only one image, or if a resample has no positive.
    """
    images = len(labels)
    if images < 2:
        return [(None, None)] * len(weights)

    def statistic(drawn: NDArray[np.int64], axis: int) -> NDArray[np.float64]:
        counts = np.apply_along_axis(np.bincount, axis, drawn, minlength=images)
        maps = np.stack([resampled_maps(labels, run, counts) for run in scores])
        sums: NDArray[np.float64] = np.einsum("cv,vkr->ckr", weights, maps)
        return sums

    with warnings.catch_warnings():
        # The statistic of a resample without a positive is NaN, and scipy warns.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        low, high = stats.bootstrap(
            (np.arange(images),),
            statistic,
            n_resamples=RESAMPLES,
            batch=_BATCH,
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
    # Six decimals are more than a table shows. Rounding hides the order of floating-point sums, so
    # that equal records give equal bytes.
    return Interval(*(round(float(end), 6) for end in ends))
