"""Compares the rows of one leaderboard in pairs, and ranks the methods."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import pandas as pd

from rscl_bench.leaderboards.image_intervals import Contrast, Intervals
from rscl_bench.leaderboards.rows import Row
from rscl_bench.leaderboards.statistics import t_interval
from rscl_bench.leaderboards.values import KEYS, KINDS, score_column
from rscl_bench.results.schema import RunRecord

LEAST_SEEDS = 3
COLUMNS = (
    "probe",
    "score",
    "method",
    "other",
    "precision",
    "device",
    "seeds",
    "difference",
    "seed_low",
    "seed_high",
    "image_low",
    "image_high",
    "p",
    "separated",
)


def pairs(rows: Sequence[Row]) -> list[tuple[Row, Row, tuple[int, ...]]]:
    """Return the comparable pairs of rows with their common seeds, sorted by row key.

    The rows of a pair are trained, have the same precision and device, and have at least
    `LEAST_SEEDS` common seeds.
    """
    trained = sorted((row for row in rows if row.reference != "lower"), key=lambda row: row.key)
    comparable = []
    for row, other in combinations(trained, 2):
        seeds = tuple(sorted(row.runs.keys() & other.runs.keys()))
        if row.key[1:] == other.key[1:] and len(seeds) >= LEAST_SEEDS:
            comparable.append((row, other, seeds))
    return comparable


def contrast_of(probe: str, row: Row, other: Row, seeds: Sequence[int]) -> Contrast:
    """Return the contrast of two rows: the difference of their mean final scores over ``seeds``."""
    of, minus = (
        tuple(side.runs[seed].record.image_scores_digest for seed in seeds) for side in (row, other)
    )
    return Contrast(probe, row.after, of, minus)


def comparisons(
    rows: Sequence[Row],
    values: pd.DataFrame,
    layout: RunRecord,
    known: Mapping[Contrast, Intervals],
) -> pd.DataFrame:
    """Compare all comparable pairs of rows after the last task, by probe and score.

    Args:
        rows: Rows of one leaderboard.
        values: Values by run, from `run_values`.
        layout: One record of the leaderboard, for tasks and probes.
        known: Known intervals over test images, by contrast.

    Returns:
        A frame with a line per comparison and the columns `COLUMNS`; differences and interval ends
        are fractions:

        - ``difference``: mean of ``method`` minus ``other`` over the common seeds;
        - ``seed_low``, ``seed_high``, ``p``: paired t test over seeds; ``p`` is NaN if all
          differences are 0;
        - ``image_low``, ``image_high``: paired bootstrap over test images; NaN if not known;
        - ``separated``: whether both intervals exclude 0 on the same side; NA if the interval over
          test images is not known.
    """
    lines: list[tuple[object, ...]] = []
    comparable = pairs(rows)
    for probe in [probe.name for probe in layout.probes]:
        for kind in KINDS:
            finals = values[score_column(len(layout.tasks), probe, kind)].unstack("seed")
            for row, other, seeds in comparable:
                by_seed = finals.loc[row.key, list(seeds)] - finals.loc[other.key, list(seeds)]
                if by_seed.isna().any():
                    continue
                test = t_interval(by_seed.tolist())
                intervals = known.get(contrast_of(probe, row, other, seeds))
                images = intervals and intervals[KINDS.index(kind)]
                separated = None
                if images:
                    low = min(test.interval.low, images.low)
                    high = max(test.interval.high, images.high)
                    separated = low > 0 or high < 0
                names = (probe, kind, row.key.method, other.key.method, *row.key[1:])
                numbers = (test.mean, *test.interval, *(images or (None, None)), test.p)
                lines.append((*names, len(seeds), *numbers, separated))
    numeric = dict.fromkeys(COLUMNS[7:13], "float64")
    return pd.DataFrame(lines, columns=COLUMNS).astype({**numeric, "separated": "boolean"})


def separations(compared: pd.DataFrame) -> pd.DataFrame:
    """Return the separated comparisons by micro-mAP, with two more columns than `comparisons`.

    ``above`` is the better method of the pair, and ``below`` the other.
    """
    separated = compared[(compared["score"] == "micro") & compared["separated"].fillna(False)]
    better = separated["difference"] > 0
    return separated.assign(
        above=separated["method"].where(better, separated["other"]),
        below=separated["other"].where(better, separated["method"]),
    )


def ranks(rows: Sequence[Row], compared: pd.DataFrame) -> pd.DataFrame:
    """Rank the methods: 1 + the number of methods that are separated above, by micro-mAP.

    Methods of one precision and device are ranked together, if they have at least `LEAST_SEEDS`
    seeds. Methods without a separation between them share a rank. If one pair of these methods
    cannot be judged, none of the methods has a rank, since that pair might change every rank.

    Args:
        rows: Rows of one leaderboard.
        compared: Comparisons of these rows, from `comparisons`.

    Returns:
        A frame with a line per row of the leaderboard and a column per probe; NaN without a rank.
    """
    keys = [row.key for row in rows if row.reference is None and len(row.runs) >= LEAST_SEEDS]
    by_probe: dict[str, dict[tuple[str, ...], int]] = {}
    judged = compared[(compared["score"] == "micro") & compared["separated"].notna()]
    for names, group in judged.groupby(["probe", "precision", "device"]):
        probe, *setting = map(str, names)
        methods = [key.method for key in keys if list(key[1:]) == setting]
        own = group[group["method"].isin(methods) & group["other"].isin(methods)]
        if len(methods) < 2 or len(own) < math.comb(len(methods), 2):
            continue
        above = separations(own)["below"].value_counts()
        by_probe.setdefault(probe, {}).update(
            {(method, *setting): 1 + int(above.get(method, 0)) for method in methods}
        )
    index = pd.MultiIndex.from_tuples([row.key for row in rows], names=KEYS)
    return pd.DataFrame(
        {probe: pd.Series(by_probe[probe], dtype="float64") for probe in by_probe}, index=index
    )
