"""The difference between two methods that a number of seeds can separate."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from math import sqrt
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, stats

from rscl_bench.errors import ArtefactError, SpecError
from rscl_bench.leaderboards.collect import collect_groups, distinct_records
from rscl_bench.leaderboards.columns import (
    DOMAIN_METRICS,
    domain_column,
    outside_column,
    score_column,
)
from rscl_bench.leaderboards.corrections import RATE
from rscl_bench.leaderboards.keys import LoadedRecord, group_folders
from rscl_bench.leaderboards.rows import leaderboard_rows
from rscl_bench.leaderboards.values import run_values
from rscl_bench.results.schema import RunRecord

#: Probability with which a difference of the stated size is separated.
POWER = 0.8
_QUANTILES = 10_000
COLUMNS = ("table", "measure", "pairs", "spread", "seeds", "uncorrected", "corrected")


def smallest_difference(spread: float, seeds: int, rate: float) -> float:
    """Return the true difference that a paired t test over seeds finds with probability `POWER`.

    The test statistic of a difference d has a noncentral t distribution with n − 1 degrees of
    freedom and noncentrality d √n / s. Source: J. Cohen, "Statistical Power Analysis for the
    Behavioral Sciences", 2nd edition, 1988, Chapter 2.

    Args:
        spread: Standard deviation s over seeds of the difference of two methods.
        seeds: Number n of seeds, at least two.
        rate: Two-sided rate of false separations.

    Returns:
        The difference, in the unit of ``spread``.
    """
    freedom = seeds - 1
    critical = stats.t.isf(rate / 2, freedom)

    # The estimated deviation over the true one, at equally likely quantiles. A mean over them
    # gives the noncentral t distribution. That of scipy is NaN in the far tails of a correction.
    quantiles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    ratios = stats.chi.ppf(quantiles, freedom) / sqrt(freedom)

    def missing(noncentrality: float) -> float:
        above = stats.norm.sf(critical * ratios - noncentrality)
        below = stats.norm.cdf(-critical * ratios - noncentrality)
        return float(np.mean(above + below)) - POWER

    root = optimize.brentq(missing, 0.0, 3 * critical + 10)
    return float(root) * spread / sqrt(seeds)


def power_table(sources: Iterable[Path], seeds: Sequence[int]) -> pd.DataFrame:
    """Return what numbers of seeds can separate, by table and measure.

    The spread of a measure is pooled over all pairs of trained rows with at least two
    common seeds: the root of the mean variance of their differences. Scores are micro-mAP.

    Args:
        sources: Folders or files of run records.
        seeds: Numbers of seeds, each at least two.

    Returns:
        A frame with the columns `COLUMNS`: number of compared ``pairs``;
        ``spread``, ``uncorrected`` and ``corrected`` in percentage points. ``uncorrected`` is the
        difference that one comparison at `RATE` separates, ``corrected`` the one that is separated
        after Holm's correction even if no other pair differs: at `RATE` over the number of pairs.

    Raises:
        SpecError: If a number of seeds is below two.
        ArtefactError: If there is no record, a record is damaged, or no table has two rows with
            two common seeds.
    """
    if min(seeds) < 2:
        raise SpecError("A spread over seeds needs at least two seeds; give numbers from 2.")
    groups = collect_groups(list(sources))
    lines = [
        line
        for key, folder in sorted(group_folders(groups).items(), key=lambda item: item[1])
        for line in _lines(str(folder), distinct_records(groups[key]), seeds)
    ]
    if not lines:
        raise ArtefactError(
            "No two methods of these records have two common seeds; run at least two methods with "
            "two seeds each."
        )
    return pd.DataFrame(lines, columns=COLUMNS)


def _lines(
    folder: str, loaded: Sequence[LoadedRecord], seeds: Sequence[int]
) -> Iterator[tuple[object, ...]]:
    rows = [row for row in leaderboard_rows(loaded, {}) if row.reference != "lower"]
    values = run_values(rows, loaded)
    for measure, column in _measures(loaded[0].record):
        by_seed = values[column].unstack("seed").astype(np.float64)
        by_row = by_seed.reindex([row.key for row in rows]).to_numpy()
        pairs_of_rows = combinations(by_row, 2)
        common = [(one - two)[np.isfinite(one - two)] for one, two in pairs_of_rows]
        variances = [np.var(differences, ddof=1) for differences in common if len(differences) > 1]
        if not variances:
            continue
        pairs = len(variances)
        spread = 100 * sqrt(float(np.mean(variances)))
        for count in seeds:
            found = [smallest_difference(spread, count, rate) for rate in (RATE, RATE / pairs)]
            yield folder, measure, pairs, spread, count, *found


def _measures(layout: RunRecord) -> Iterator[tuple[str, str]]:
    """Yield name and column: the last score of each probe, then the continual metrics."""
    for probe in [probe.name for probe in layout.probes]:
        yield f"{probe} after the last task", score_column(len(layout.tasks), probe, "micro")
    if any(probe.task is not None for probe in layout.probes):
        for metric in DOMAIN_METRICS:
            yield f"own domains: {metric.replace('_', ' ')}", domain_column(metric, "micro")
    for probe in [probe.name for probe in layout.probes if probe.task is None]:
        yield f"{probe}: mean over tasks", outside_column(probe, "mean_over_tasks", "micro")
