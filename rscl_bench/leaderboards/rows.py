"""Assigns runs to the rows of a leaderboard."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from rscl_bench.leaderboards.image_intervals import Contrast
from rscl_bench.leaderboards.keys import LoadedRecord, RowKey, row_key
from rscl_bench.results.marks import MarkName, weakest
from rscl_bench.results.packed_scores import has_scores
from rscl_bench.results.schema import (
    INITIAL_ENCODER,
    PIXEL_STATISTICS,
    RANDOM_ENCODER,
    RunRecord,
)


@dataclass(frozen=True)
class Row:
    """One row of a leaderboard.

    Attributes:
        key: Method and precision.
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
    def devices(self) -> tuple[str, ...]:
        """Full names of the devices that trained the runs, sorted; empty for a lower reference."""
        if self.reference == "lower":
            return ()
        return tuple(sorted({run.record.provenance.device for run in self.runs.values()}))

    @property
    def seeds(self) -> int | None:
        """Number of seeds; None for pixel statistics, which do not depend on a seed."""
        return None if self.after is None else len(self.runs)

    @property
    def mark(self) -> MarkName | None:
        """Weakest mark of the runs; None for a lower reference, which no single run makes."""
        if self.reference == "lower":
            return None
        return weakest(run.mark for run in self.runs.values())

    def contrast(self, probe: str) -> Contrast | None:
        """Return the contrast of the row's mean score after the last task; None without a score.

        A probe that trains the encoder has no score of pixel statistics. An extended run has no
        score of a probe whose archive was gone.
        """
        records = [run.record for run in self.runs.values()]
        if self.after is None and any(probe not in r.pixel_statistics for r in records):
            return None
        if self.after is not None and not all(r.is_probed(probe, self.after) for r in records):
            return None
        return Contrast(probe, self.after, tuple(r.image_scores_digest for r in records))


def encoder_key(record: RunRecord) -> RowKey:
    """Return the key of the row of a run's untrained encoder: random, or from a file."""
    init = record.identity.init
    name = RANDOM_ENCODER if init is None else f"{INITIAL_ENCODER}:{init[:8]}"
    return RowKey(name, record.identity.precision)


def leaderboard_rows(
    loaded: Sequence[LoadedRecord], stored: Collection[Contrast] = ()
) -> list[Row]:
    """Return the rows: untrained encoders, pixel statistics, then methods; each sorted by key.

    Several runs can stand for one seed of a lower reference. Runs whose interval over test images
    can be computed, or is stored, come first.

    Args:
        loaded: Records of one group, sorted by row and seed.
        stored: Contrasts of the stored intervals.
    """
    methods: dict[RowKey, dict[int, LoadedRecord]] = {}
    encoders: dict[RowKey, dict[int, list[LoadedRecord]]] = {}
    for item in loaded:
        methods.setdefault(row_key(item.record), {})[item.seed] = item
        encoders.setdefault(encoder_key(item.record), {}).setdefault(item.seed, []).append(item)
    pixel_runs = _representatives({loaded[0].seed: loaded}, None, stored)
    after = len(loaded[0].record.tasks)
    return [
        *(Row(k, _representatives(encoders[k], 0, stored), 0, "lower") for k in sorted(encoders)),
        Row(RowKey(PIXEL_STATISTICS, ""), pixel_runs, None, "lower"),
        *(Row(k, runs, after, _reference(runs)) for k, runs in methods.items()),
    ]


def _representatives(
    by_seed: Mapping[int, Sequence[LoadedRecord]], after: int | None, stored: Collection[Contrast]
) -> dict[int, LoadedRecord]:
    """Choose one run per seed of a lower reference.

    Args:
        by_seed: All runs by seed.
        after: Field ``after`` of the reference's contrasts.
        stored: Contrasts of the stored intervals.
    """
    seeds = sorted(by_seed)
    with_images = {
        seed: next((i for i in by_seed[seed] if has_scores(i.path)), None) for seed in seeds
    }
    complete = {seed: item for seed, item in with_images.items() if item is not None}
    if len(complete) == len(seeds):
        return complete
    digests = [{i.record.image_scores_digest: i for i in by_seed[seed]} for seed in seeds]
    for contrast in stored:
        if (contrast.after, contrast.minus) == (after, ()) and len(contrast.of) == len(seeds):
            found = [own.get(d) for own, d in zip(digests, contrast.of, strict=True)]
            known = {s: item for s, item in zip(seeds, found, strict=True) if item is not None}
            if len(known) == len(seeds):
                return known
    return {seed: by_seed[seed][0] for seed in seeds}


def _reference(runs: Mapping[int, LoadedRecord]) -> Literal["upper"] | None:
    tasks = [run.record.tasks for run in runs.values()]
    all_at_once = all(len(t) > 1 and not any(task.steps for task in t[1:]) for t in tasks)
    return "upper" if all_at_once else None
