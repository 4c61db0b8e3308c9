"""Rows of a leaderboard: means, deviations and intervals over seeds."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import fmean, stdev
from typing import Literal, NamedTuple

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboard.collect import LoadedRecord, RowKey
from rscl_bench.leaderboard.image_intervals import Contrast
from rscl_bench.leaderboard.statistics import t_interval
from rscl_bench.results.schema import PIXEL_STATISTICS, RANDOM_ENCODER, ProbeScore, RunRecord

KINDS = ("micro", "macro")
DOMAIN_METRICS = (
    "final_average",
    "average_incremental",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
)
OUTSIDE_METRICS = ("final", "mean_over_tasks", "gain_over_random")

# Runs of one untrained encoder with other thread counts or device models differ by rounding, which
# now and then swaps two neighbours: 0.1 points. Another initialisation differs by far more.
_SAME_ENCODER = 1e-3


class Cell(NamedTuple):
    """A value over seeds, as fractions; None if undefined.

    Attributes:
        mean: Mean.
        std: Sample standard deviation (n − 1).
        ci95: Half the width of the 95 % t interval of the mean.
    """

    mean: float | None
    std: float | None
    ci95: float | None


EMPTY = Cell(None, None, None)


@dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        key: Method, precision, device.
        runs: What the row is from, by seed; any one run where seeds play no part.
        seeds: How many; None where seeds play no part.
        after: How many tasks the last scores are after; None for pixel statistics.
        cells: By column, see `columns`; a column may be absent.
        training_hours: Mean over seeds of the sum over tasks; None for a lower reference.
        images_per_second: Mean over seeds of images by seconds of all tasks that trained; None for
            a lower reference.
        trainable: Trained parameters; None for a lower reference.
        gflops: With and without gradient per image of a step of the objective, 10⁹; None for a
            lower reference, or where a run's were not counted.
        reference: ``lower`` where nothing was trained, ``upper`` where all was trained in the first
            task, None for a continual method.
    """

    key: RowKey
    runs: Mapping[int, LoadedRecord]
    seeds: int | None
    after: int | None
    cells: dict[str, Cell]
    training_hours: float | None = None
    images_per_second: float | None = None
    trainable: int | None = None
    gflops: tuple[float, float] | None = None
    reference: Literal["lower", "upper"] | None = None

    def contrast(self, probe: str) -> Contrast | None:
        """Return what the interval over test images of the row's last score is of.

        None if there is no score: pixel statistics cannot be trained.
        """
        records = [run.record for run in self.runs.values()]
        if self.after is None and any(probe not in r.pixel_statistics for r in records):
            return None
        return Contrast(probe, self.after, tuple(r.image_scores_digest for r in records))


def score_column(task: int, probe: str, kind: str) -> str:
    """Return the column of a score after a task, counted from 1."""
    return f"T{task}.{probe}.{kind}"


def domain_column(metric: str, kind: str) -> str:
    """Return the column of a continual metric over the probes of the tasks' domains."""
    return f"continual.{metric}.{kind}"


def outside_column(probe: str, metric: str, kind: str) -> str:
    """Return the column of a continual metric of one outside probe."""
    return f"{probe}.{metric}.{kind}"


def columns(record: RunRecord) -> list[str]:
    """Return the columns of a record's leaderboard, in order; domain metrics only if it has any."""
    return list(_values(record))


def leaderboard_rows(loaded: Sequence[LoadedRecord]) -> list[Row]:
    """Return lower and upper references, then the methods by falling final micro score.

    Args:
        loaded: The records of one group, sorted by row and seed.

    Returns:
        The rows, ties by name. Several probes count alike in the order.

    Raises:
        ArtefactError: If the untrained encoders of one seed, or the pixel statistics, disagree.
    """
    methods = [_method_row(key, list(items)) for key, items in groupby(loaded, lambda i: i.row)]
    first = loaded[0].record
    last = [score_column(len(first.tasks), probe.name, "micro") for probe in first.probes]

    def order(row: Row) -> tuple[bool, float, RowKey]:
        final = _mean_of_present(row.cells[column].mean for column in last)
        return (row.reference is None, math.inf if final is None else -final, row.key)

    return [*_random_rows(loaded), _pixel_row(loaded), *sorted(methods, key=order)]


def _method_row(key: RowKey, items: list[LoadedRecord]) -> Row:
    records = [item.record for item in items]
    values = [_values(record) for record in records]
    hours = [math.fsum(t.train_seconds for t in r.tasks) / 3600 for r in records]
    all_at_once = [len(r.tasks) > 1 and not any(t.steps for t in r.tasks[1:]) for r in records]
    return Row(
        key=key,
        runs={item.seed: item for item in items},
        seeds=len(records),
        after=len(records[0].tasks),
        cells={column: _cell([one[column] for one in values]) for column in values[0]},
        training_hours=fmean(hours),
        images_per_second=fmean(_images_per_second(record) for record in records),
        trainable=records[0].parameters.trainable,
        gflops=_gflops(records),
        reference="upper" if all(all_at_once) else None,
    )


def _gflops(records: Sequence[RunRecord]) -> tuple[float, float] | None:
    counted = [record.flops for record in records if record.flops is not None]
    if len(counted) < len(records):
        return None
    with_gradient = fmean(flops.with_gradient for flops in counted)
    return with_gradient / 1e9, fmean(flops.without_gradient for flops in counted) / 1e9


def _images_per_second(record: RunRecord) -> float:
    """Return all images by all seconds, over the tasks that trained."""
    trained = [task for task in record.tasks if task.images_per_second is not None]
    images = math.fsum((task.images_per_second or 0.0) * task.train_seconds for task in trained)
    return images / math.fsum(task.train_seconds for task in trained)


def _values(record: RunRecord) -> dict[str, float | None]:
    """Return the value of every column for one run, in the order of the table."""
    values: dict[str, float | None] = {}
    for task in range(1, len(record.tasks) + 1):
        for probe in record.probes:
            for kind in KINDS:
                values[score_column(task, probe.name, kind)] = _test_value(
                    record.scores[task][probe.name], kind
                )
    by_kind = {kind: getattr(record.continual, kind) for kind in KINDS}
    if any(probe.task is not None for probe in record.probes):
        for metric in DOMAIN_METRICS:
            for kind in KINDS:
                values[domain_column(metric, kind)] = getattr(by_kind[kind], metric)
    for name in [probe.name for probe in record.probes if probe.task is None]:
        for metric in OUTSIDE_METRICS:
            for kind in KINDS:
                value = getattr(by_kind[kind].outside[name], metric)
                values[outside_column(name, metric, kind)] = value
    return values


def _test_value(score: ProbeScore, kind: str) -> float | None:
    return score.test.micro if kind == "micro" else score.test.macro


def _random_rows(loaded: Sequence[LoadedRecord]) -> list[Row]:
    """Return one row per precision and device type: the untrained encoder, the same at every task.

    A seed counts once, however many methods ran it.
    """
    settings: dict[RowKey, dict[int, list[LoadedRecord]]] = {}
    for item in loaded:
        device_type = item.record.provenance.device_type
        key = RowKey(RANDOM_ENCODER, item.record.identity.precision, device_type)
        settings.setdefault(key, {}).setdefault(item.seed, []).append(item)
    return [
        Row(
            key=key,
            runs={seed: seeds[seed][0] for seed in sorted(seeds)},
            seeds=len(seeds),
            after=0,
            cells=_random_cells(seeds),
            reference="lower",
        )
        for key, seeds in sorted(settings.items())
    ]


def _random_cells(seeds: dict[int, list[LoadedRecord]]) -> dict[str, Cell]:
    layout = next(iter(seeds.values()))[0].record

    def cell(probe: str, kind: str) -> Cell:
        def untrained(record: RunRecord) -> float | None:
            return _test_value(record.scores[0][probe], kind)

        field = f"scores.0.{probe}.test.{kind}"
        return _cell([_agreed(seeds[seed], field, untrained) for seed in sorted(seeds)])

    return _at_every_task(layout, cell)


def _pixel_row(loaded: Sequence[LoadedRecord]) -> Row:
    def cell(probe: str, kind: str) -> Cell:
        def statistics(record: RunRecord) -> float | None:
            score = record.pixel_statistics.get(probe)
            return None if score is None else _test_value(score, kind)

        field = f"pixel_statistics.{probe}.test.{kind}"
        return Cell(_agreed(loaded, field, statistics), None, None)

    return Row(
        key=RowKey(PIXEL_STATISTICS, "", ""),
        runs={loaded[0].seed: loaded[0]},
        seeds=None,
        after=None,
        cells=_at_every_task(loaded[0].record, cell),
        reference="lower",
    )


def _at_every_task(layout: RunRecord, cell: Callable[[str, str], Cell]) -> dict[str, Cell]:
    found = {(p.name, kind): cell(p.name, kind) for p in layout.probes for kind in KINDS}
    tasks = range(1, len(layout.tasks) + 1)
    return {score_column(t, *place): value for t in tasks for place, value in found.items()}


def _agreed(
    loaded: Sequence[LoadedRecord], field: str, value: Callable[[RunRecord], float | None]
) -> float | None:
    """Return the mean of values that must be the same but for rounding."""
    # None sorts below every score, so that it disagrees with any.
    ranked = sorted((-1.0 if (v := value(i.record)) is None else v, i.path) for i in loaded)
    (low, low_path), (high, high_path) = ranked[0], ranked[-1]
    if high - low > _SAME_ENCODER:
        raise ArtefactError(
            f"{low_path} and {high_path} must agree in the field '{field}', which no training "
            "touches, and do not; run both again with one version."
        )
    return None if high < 0 else fmean(v for v, _ in ranked)


def _cell(values: Sequence[float | None]) -> Cell:
    present = [value for value in values if value is not None]
    if len(present) < len(values):  # a mean over fewer seeds than the row states would mislead
        return EMPTY
    mean = fmean(present)
    if len(present) < 2:
        return Cell(mean, None, None)
    return Cell(mean, stdev(present), t_interval(present).interval.high - mean)


def _mean_of_present(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None
