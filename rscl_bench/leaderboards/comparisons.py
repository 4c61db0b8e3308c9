"""Compares the rows of one leaderboard in pairs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import pandas as pd

from rscl_bench.leaderboards.columns import KINDS, score_column
from rscl_bench.leaderboards.corrections import RATE, benjamini_hochberg, holm
from rscl_bench.leaderboards.image_intervals import Contrast, Intervals
from rscl_bench.leaderboards.keys import RowKey
from rscl_bench.leaderboards.machines import same_machine
from rscl_bench.leaderboards.rows import Row
from rscl_bench.leaderboards.statistics import t_interval
from rscl_bench.results.schema import RunRecord

LEAST_SEEDS = 3
_NAMES = ("probe", "score", "method", "precision", "other", "other_precision")
_COUNTS = ("seeds", "other_machine", "unknown_machine")
_NUMBERS = (
    "difference",
    "seed_low",
    "seed_high",
    "image_low",
    "image_high",
    "p",
    "p_bh",
    "p_holm",
)
COLUMNS = (*_NAMES, *_COUNTS, *_NUMBERS, "separated")


@dataclass(frozen=True)
class Pair:
    """Two rows that are compared, and their common seeds."""

    row: Row
    other: Row
    seeds: tuple[int, ...]

    def contrast(self, probe: str) -> Contrast:
        """Return the contrast of the rows: the difference of their mean final scores."""
        of, minus = (
            tuple(side.runs[seed].record.image_scores_digest for seed in self.seeds)
            for side in (self.row, self.other)
        )
        return Contrast(probe, self.row.after, of, minus)

    def machines(self) -> tuple[int, int]:
        """Count the seeds whose two runs ran on two machines, and the seeds that do not tell."""
        same = [
            same_machine(self.row.runs[seed].record, self.other.runs[seed].record)
            for seed in self.seeds
        ]
        return same.count(False), same.count(None)


def pairs(rows: Sequence[Row]) -> list[Pair]:
    """Return the comparable pairs of rows, sorted by row key.

    The rows of a pair are trained and have at least `LEAST_SEEDS` common seeds. They may
    differ in precision.
    """
    trained = sorted((row for row in rows if row.reference != "lower"), key=lambda row: row.key)
    return [
        Pair(row, other, seeds)
        for row, other in combinations(trained, 2)
        if len(seeds := tuple(sorted(row.runs.keys() & other.runs.keys()))) >= LEAST_SEEDS
    ]


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
        - ``other_machine``, ``unknown_machine``: number of common seeds whose two runs ran on two
          machines, and whose records do not tell;
        - ``seed_low``, ``seed_high``, ``p``: paired t test over seeds; ``p`` is NaN if all
          differences are 0;
        - ``image_low``, ``image_high``: paired bootstrap over test images; NaN if not known;
        - ``p_bh``, ``p_holm``: ``p`` after the two corrections. A family is all comparisons of one
          probe and score that can be judged, that is, with a known interval over test images. NaN
          outside a family, and where ``p`` is NaN;
        - ``separated``: whether ``p_bh`` is at most `RATE` and the interval over test images
          excludes 0 on the side of the difference; NA if that interval is not known.
    """
    compared, families = pairs(rows), []
    for probe in [probe.name for probe in layout.probes]:
        for kind in KINDS:
            finals = values[score_column(len(layout.tasks), probe, kind)].unstack("seed")
            lines = pd.DataFrame(_lines(compared, finals, probe, kind, known), columns=COLUMNS)
            families.append(_corrected(_typed(lines)))
    return pd.concat(families, ignore_index=True) if families else _typed(pd.DataFrame())


def _lines(
    compared: Sequence[Pair],
    finals: pd.DataFrame,
    probe: str,
    kind: str,
    known: Mapping[Contrast, Intervals],
) -> Iterator[tuple[object, ...]]:
    """Yield the lines of one probe and score, without corrections."""
    for pair in compared:
        one, two = pair.row.key, pair.other.key
        by_seed = finals.loc[one, list(pair.seeds)] - finals.loc[two, list(pair.seeds)]
        if by_seed.isna().any():
            continue
        test = t_interval(by_seed.tolist())
        intervals = known.get(pair.contrast(probe))
        images = (intervals and intervals[KINDS.index(kind)]) or (None, None)
        counts = (len(pair.seeds), *pair.machines())
        numbers = (test.mean, *test.interval, *images, test.p, None, None)
        yield (probe, kind, *one, *two, *counts, *numbers, None)


def _typed(lines: pd.DataFrame) -> pd.DataFrame:
    frame = lines.reindex(columns=list(COLUMNS))
    return frame.astype(
        {
            **dict.fromkeys(_COUNTS, "int64"),
            **dict.fromkeys(_NUMBERS, "float64"),
            "separated": "boolean",
        }
    )


def _corrected(family: pd.DataFrame) -> pd.DataFrame:
    """Return the comparisons of one probe and score with corrected p values and judgements."""
    judged = family["image_low"].notna()
    if not judged.any():
        return family
    p = family.loc[judged, "p"]
    filled = p.fillna(1.0).tolist()  # all differences are 0, so nothing speaks for a difference
    for column, correct in (("p_bh", benjamini_hochberg), ("p_holm", holm)):
        family.loc[judged, column] = pd.Series(correct(filled), index=p.index).where(p.notna())
    up = (family["difference"] > 0) & (family["image_low"] > 0)
    down = (family["difference"] < 0) & (family["image_high"] < 0)
    separated = (family["p_bh"] <= RATE) & (up | down)
    family.loc[judged, "separated"] = separated[judged]
    return family


def separations(compared: pd.DataFrame) -> list[tuple[RowKey, RowKey]]:
    """Return the keys of the separated rows by micro-mAP, the better row of each pair first.

    Args:
        compared: Comparisons of one probe, from `comparisons`.
    """
    separated = compared[(compared["score"] == "micro") & compared["separated"].fillna(False)]
    return [
        (one, two) if difference > 0 else (two, one)
        for (one, two), difference in zip(
            compared_rows(separated), separated["difference"], strict=True
        )
    ]


def compared_rows(compared: pd.DataFrame) -> list[tuple[RowKey, RowKey]]:
    """Return the keys of the two rows of each comparison."""
    names = [compared[name].astype(str) for name in _NAMES[2:]]
    return [
        (RowKey(method, precision), RowKey(other, other_precision))
        for method, precision, other, other_precision in zip(*names, strict=True)
    ]
