"""Makes the table of one run: two rows of lower references, then one row per task."""

from dataclasses import dataclass

from rscl_bench.probes.metrics import MultilabelMAP
from rscl_bench.results.schema import (
    INITIAL_ENCODER,
    PIXEL_STATISTICS,
    RANDOM_ENCODER,
    ProbeScore,
    RunRecord,
)


@dataclass(frozen=True)
class RunRow:
    """One row of the table of a run.

    Attributes:
        name: Name of the task, or ``random-encoder``, ``initial-encoder`` (from a
            file) or ``pixel-statistics``.
        scores: Test scores by probe, as fractions.
        train_seconds: Training time of this task in seconds; None for a reference.
        images_per_second: Training speed in this task; None for a reference, and for a task without
            a step.
    """

    name: str
    scores: dict[str, MultilabelMAP]
    train_seconds: float | None
    images_per_second: float | None


def run_table(record: RunRecord) -> list[RunRow]:
    """Return the rows of one run: references first, then tasks in the order of the stream."""
    untrained, *trained = record.scores
    before = RANDOM_ENCODER if record.identity.init is None else INITIAL_ENCODER
    references = ((before, untrained), (PIXEL_STATISTICS, record.pixel_statistics))
    rows = [RunRow(name, _test_scores(scores), None, None) for name, scores in references]
    for task, scores in zip(record.tasks, trained, strict=True):
        tested = _test_scores(scores)
        rows.append(RunRow(task.name, tested, task.train_seconds, task.images_per_second))
    return rows


def _test_scores(scores: dict[str, ProbeScore]) -> dict[str, MultilabelMAP]:
    return {probe: score.test for probe, score in scores.items()}
