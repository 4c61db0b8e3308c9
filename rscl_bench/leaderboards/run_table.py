"""The table of one run: the lower references, then one row per task."""

from dataclasses import dataclass

from rscl_bench.probes.metrics import MultilabelMAP
from rscl_bench.results.schema import PIXEL_STATISTICS, RANDOM_ENCODER, ProbeScore, RunRecord


@dataclass(frozen=True)
class RunRow:
    """One row.

    Attributes:
        name: The task, ``random-encoder`` or ``pixel-statistics``.
        scores: Test scores by probe, as fractions.
        train_seconds: Of this task; None for a reference.
        images_per_second: Of this task; None for a reference, and for a task without a step.
    """

    name: str
    scores: dict[str, MultilabelMAP]
    train_seconds: float | None
    images_per_second: float | None


def run_table(record: RunRecord) -> list[RunRow]:
    """Return the rows of one run, references first, tasks in the order of the stream."""
    untrained, *trained = record.scores
    references = ((RANDOM_ENCODER, untrained), (PIXEL_STATISTICS, record.pixel_statistics))
    rows = [RunRow(name, _tests(scores), None, None) for name, scores in references]
    for task, scores in zip(record.tasks, trained, strict=True):
        rows.append(RunRow(task.name, _tests(scores), task.train_seconds, task.images_per_second))
    return rows


def _tests(scores: dict[str, ProbeScore]) -> dict[str, MultilabelMAP]:
    return {probe: score.test for probe, score in scores.items()}
