"""Assigns runs to the rows of a leaderboard."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rscl_bench.leaderboards.collect import LoadedRecord, RowKey, row_key
from rscl_bench.leaderboards.image_intervals import Contrast
from rscl_bench.results.schema import PIXEL_STATISTICS, RANDOM_ENCODER, RunRecord


@dataclass(frozen=True)
class Row:
    """One row of a leaderboard.

    Attributes:
        key: Method, precision and device.
        runs: Runs of the row by seed. A lower reference takes one run per seed, of any method.
        after: Number of tasks trained before the final probing; None for pixel statistics.
        reference: ``lower`` for a row without training, ``upper`` for a method that trains in the
            first task only, None for a continual method.
    """

    key: RowKey
    runs: Mapping[int, LoadedRecord]
    after: int | None
    reference: Literal["lower", "upper"] | None

    @property
    def seeds(self) -> int | None:
        """Number of seeds; None for pixel statistics, which do not depend on a seed."""
        return None if self.after is None else len(self.runs)

    def contrast(self, probe: str) -> Contrast | None:
        """Return the contrast of the row's mean score after the last task; None without a score.

        A probe that trains the encoder has no score of pixel statistics.
        """
        records = [run.record for run in self.runs.values()]
        if self.after is None and any(probe not in r.pixel_statistics for r in records):
            return None
        return Contrast(probe, self.after, tuple(r.image_scores_digest for r in records))


def encoder_key(record: RunRecord) -> RowKey:
    """Return the key of the row of a run's untrained encoder; the device is the device's type."""
    return RowKey(RANDOM_ENCODER, record.identity.precision, record.provenance.device_type)


def leaderboard_rows(loaded: Sequence[LoadedRecord]) -> list[Row]:
    """Return the rows: untrained encoders, pixel statistics, then methods; each sorted by key.

    Args:
        loaded: Records of one group, sorted by row and seed.
    """
    methods: dict[RowKey, dict[int, LoadedRecord]] = {}
    encoders: dict[RowKey, dict[int, LoadedRecord]] = {}
    for item in loaded:
        methods.setdefault(row_key(item.record), {})[item.seed] = item
        encoders.setdefault(encoder_key(item.record), {}).setdefault(item.seed, item)
    first = loaded[0]
    return [
        *(Row(k, dict(sorted(encoders[k].items())), 0, "lower") for k in sorted(encoders)),
        Row(RowKey(PIXEL_STATISTICS, "", ""), {first.seed: first}, None, "lower"),
        *(Row(k, runs, len(first.record.tasks), _reference(runs)) for k, runs in methods.items()),
    ]


def _reference(runs: Mapping[int, LoadedRecord]) -> Literal["upper"] | None:
    tasks = [run.record.tasks for run in runs.values()]
    all_at_once = all(len(t) > 1 and not any(task.steps for task in t[1:]) for t in tasks)
    return "upper" if all_at_once else None
