"""Paired comparisons of the methods of one leaderboard, and the ranks that follow from them."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product

from rscl_bench.leaderboard.collect import RowKey
from rscl_bench.leaderboard.image_intervals import Contrast, Intervals
from rscl_bench.leaderboard.rows import KINDS, Row
from rscl_bench.leaderboard.statistics import Interval, SeedTest, t_interval
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


@dataclass(frozen=True)
class Comparison:
    """One score of two rows after the last task, ``row`` minus ``other``.

    Attributes:
        probe: Name.
        kind: ``micro`` or ``macro``.
        row: Key of the one row.
        other: Key of the other.
        seeds: How many both have; the comparison is over these.
        by_seed: Paired t test over seeds.
        bootstrap_interval: Paired bootstrap interval over test images of the mean over seeds;
            None where it is not known.
    """

    probe: str
    kind: str
    row: RowKey
    other: RowKey
    seeds: int
    by_seed: SeedTest
    bootstrap_interval: Interval | None

    @property
    def separated(self) -> bool | None:
        """Whether both intervals exclude 0 on the same side; None where one is not known."""
        if self.bootstrap_interval is None:
            return None
        low = min(self.by_seed.interval.low, self.bootstrap_interval.low)
        high = max(self.by_seed.interval.high, self.bootstrap_interval.high)
        return low > 0 or high < 0

    @property
    def above(self) -> RowKey | None:
        """The row that is separated above the other, None if neither is."""
        if not self.separated:
            return None
        return self.row if self.by_seed.mean > 0 else self.other


def pairs(rows: Sequence[Row]) -> list[tuple[Row, Row, tuple[int, ...]]]:
    """Return the pairs that can be compared, with the seeds that both have.

    Two trained rows of one precision and device with at least `LEAST_SEEDS` common seeds, by name.
    """
    trained = sorted((row for row in rows if row.reference != "lower"), key=lambda row: row.key)
    found = []
    for row, other in combinations(trained, 2):
        seeds = tuple(sorted(row.runs.keys() & other.runs.keys()))
        if row.key[1:] == other.key[1:] and len(seeds) >= LEAST_SEEDS:
            found.append((row, other, seeds))
    return found


def contrast_of(probe: str, row: Row, other: Row, seeds: Sequence[int]) -> Contrast:
    """Return what the interval over images of two rows' difference is of."""
    of, minus = (
        tuple(one.runs[seed].record.image_scores_digest for seed in seeds) for one in (row, other)
    )
    return Contrast(probe, row.after, of, minus)


def comparisons(
    rows: Sequence[Row], layout: RunRecord, known: Mapping[Contrast, Intervals]
) -> list[Comparison]:
    """Return the comparisons of all pairs by probe, of both kinds of score.

    Args:
        rows: Of one leaderboard.
        layout: Any of its records.
        known: Intervals over images, as far as they are known.
    """
    found = []
    for probe, kind in product(layout.probes, KINDS):
        for row, other, seeds in pairs(rows):
            left, right = (
                [_final(one.runs[seed].record, probe.name, kind) for seed in seeds]
                for one in (row, other)
            )
            differences = [
                a - b for a, b in zip(left, right, strict=True) if a is not None and b is not None
            ]
            if len(differences) < len(seeds):
                continue
            intervals = known.get(contrast_of(probe.name, row, other, seeds))
            found.append(
                Comparison(
                    probe=probe.name,
                    kind=kind,
                    row=row.key,
                    other=other.key,
                    seeds=len(seeds),
                    by_seed=t_interval(differences),
                    bootstrap_interval=intervals and intervals[KINDS.index(kind)],
                )
            )
    return found


def _final(record: RunRecord, probe: str, kind: str) -> float | None:
    value: float | None = getattr(record.scores[-1][probe].test, kind)
    return value


def ranks(rows: Sequence[Row], compared: Sequence[Comparison]) -> dict[tuple[str, RowKey], int]:
    """Return ranks by probe and row: 1 + the number of rows that are separated above it.

    By micro-mAP after the last task, among the methods of one precision and device that have at
    least `LEAST_SEEDS` seeds. Rows that nothing separates share a rank. There are no ranks among
    methods of which one pair cannot be judged: that pair might change them.

    Args:
        rows: Of one leaderboard.
        compared: What `comparisons` returned for them.
    """
    ranked = {}
    keys = [row.key for row in rows if row.reference is None and len(row.runs) >= LEAST_SEEDS]
    judged = [c for c in compared if c.kind == "micro" and c.separated is not None]
    for probe, setting in {(c.probe, key[1:]): None for c in compared for key in keys}:
        among = [key for key in keys if key[1:] == setting]
        own = [c for c in judged if c.probe == probe and {c.row, c.other} <= set(among)]
        if len(among) < 2 or len(own) < math.comb(len(among), 2):
            continue
        for key in among:
            over = [c for c in own if key in (c.row, c.other) and c.above not in (None, key)]
            ranked[probe, key] = 1 + len(over)
    return ranked


def comparisons_csv(compared: Sequence[Comparison]) -> str:
    """Return a line per comparison: points with four decimals, empty where not known."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in compared:
        ends = [*one.by_seed.interval, *(one.bootstrap_interval or (None, None))]
        points = [_points(value) for value in (one.by_seed.mean, *ends)]
        p = "" if one.by_seed.p is None else f"{one.by_seed.p:.4g}"
        separated = {None: "", True: "yes", False: "no"}[one.separated]
        names = [one.row.label, one.other.label, *one.row[1:]]
        writer.writerow([one.probe, one.kind, *names, one.seeds, *points, p, separated])
    return text.getvalue()


def _points(fraction: float | None) -> str:
    return "" if fraction is None else f"{round(100 * fraction, 4) + 0.0:.4f}"  # + 0.0: no -0
