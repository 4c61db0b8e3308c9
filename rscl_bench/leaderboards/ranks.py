"""Ranks the methods of one leaderboard."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations

import pandas as pd

from rscl_bench.leaderboards.columns import KEYS
from rscl_bench.leaderboards.comparisons import (
    LEAST_SEEDS,
    compared_rows,
    separations,
)
from rscl_bench.leaderboards.keys import RowKey
from rscl_bench.leaderboards.rows import Row


def ranks(rows: Sequence[Row], compared: pd.DataFrame) -> pd.DataFrame:
    """Rank the methods: 1 + the number of ranked methods that are separated above, by micro-mAP.

    Methods without a separation between them share a rank. A method needs at least `LEAST_SEEDS`
    seeds. All pairs of ranked methods can be judged: as long as a pair cannot, the method with the
    most such pairs is left without a rank. If several methods have equally many, the method that
    was recorded last is left without a rank. So a method that cannot be judged takes no rank from
    the others.

    Args:
        rows: Rows of one leaderboard.
        compared: Comparisons of these rows, from `comparisons`.

    Returns:
        A frame with a line per row of the leaderboard and a column per probe with a rank; NaN
        without a rank.
    """
    methods = [row for row in rows if row.reference is None and len(row.runs) >= LEAST_SEEDS]
    by_probe: dict[str, dict[RowKey, int]] = {}
    judged = compared[(compared["score"] == "micro") & compared["separated"].notna()]
    for probe, group in judged.groupby("probe"):
        pairs = {frozenset(pair) for pair in compared_rows(group)}
        above = separations(group)
        ranked = _judged_throughout(methods, pairs)
        if len(ranked) > 1:
            lost = Counter(below for better, below in above if {better, below} <= ranked)
            by_probe[str(probe)] = {key: 1 + lost[key] for key in sorted(ranked)}
    index = pd.MultiIndex.from_tuples([row.key for row in rows], names=KEYS)
    return pd.DataFrame(
        {probe: pd.Series(by_probe[probe], dtype="float64") for probe in by_probe}, index=index
    )


def _judged_throughout(methods: Iterable[Row], pairs: set[frozenset[RowKey]]) -> set[RowKey]:
    """Return the methods that remain when those with pairs that cannot be judged are left out."""
    left = {row.key: max(r.record.provenance.started for r in row.runs.values()) for row in methods}
    while unjudged := [p for p in combinations(sorted(left), 2) if frozenset(p) not in pairs]:
        counts = Counter(key for pair in unjudged for key in pair)
        del left[max(counts, key=lambda key: (counts[key], left[key], key))]
    return set(left)
