"""Computes continual-learning metrics from a score matrix; an undefined metric is None."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from rscl_bench.results.schema import (
    ContinualMetrics,
    ContinualRecord,
    OutsideMetrics,
    ProbeRecord,
    ProbeScore,
    TaskRecord,
)

ScoreRow = Mapping[str, float | None]


def continual_of(
    tasks: Sequence[TaskRecord],
    probes: Sequence[ProbeRecord],
    scores: Sequence[Mapping[str, ProbeScore]],
) -> ContinualRecord:
    """Return the continual metrics of the test scores.

    Args:
        tasks: Tasks in the order of the stream.
        probes: Probes; the ``task`` of each is one of the tasks or None.
        scores: Rows of scores by probe: row 0 is for the untrained encoder, row t for the encoder
            after task t.

    Raises:
        KeyError: If a row lacks the score of a probe.
        ValueError: If a probe's task is not one of the tasks, or there is no row after a task.
    """
    order = [task.name for task in tasks]
    task_of = {p.name: None if p.task is None else order.index(p.task) for p in probes}

    def metrics(kind: str) -> ContinualMetrics:
        matrix = [{name: getattr(row[name].test, kind) for name in task_of} for row in scores]
        return continual_metrics(matrix[1:], task_of, matrix[0])

    return ContinualRecord(micro=metrics("micro"), macro=metrics("macro"))


def continual_metrics(
    scores: Sequence[ScoreRow], task_of: Mapping[str, int | None], baseline: ScoreRow
) -> ContinualMetrics:
    """Return the metrics of one run; `ContinualMetrics` gives their formulas and sources.

    Args:
        scores: The matrix R: one row after each task, with a score per probe. An undefined score is
            None.
        task_of: For each probe, the index of the task whose domain the probe belongs to, counted
            from 0; None for an outside probe.
        baseline: The vector b: scores of the untrained encoder by probe.

    Raises:
        ValueError: If there is no row, or an index of a task has no row.
    """
    if not scores:
        raise ValueError("continual metrics need the scores after at least one task")
    domain = {probe: task for probe, task in task_of.items() if task is not None}
    if not all(0 <= task < len(scores) for task in domain.values()):
        raise ValueError(f"tasks {sorted(domain.values())} do not fit {len(scores)} rows")
    final, last = scores[-1], len(scores) - 1
    past = {probe: task for probe, task in domain.items() if task < last}
    return ContinualMetrics(
        final_average=_mean(final[probe] for probe in domain),
        average_incremental=_mean(
            _mean(row[probe] for probe, task in domain.items() if task <= t)
            for t, row in enumerate(scores)
            if any(task <= t for task in domain.values())
        ),
        backward_transfer=_mean(
            _difference(final[probe], scores[task][probe]) for probe, task in past.items()
        ),
        forgetting=_mean(
            _difference(_best(row[probe] for row in scores[task:last]), final[probe])
            for probe, task in past.items()
        ),
        forward_transfer=_mean(
            _difference(scores[task - 1][probe], baseline[probe])
            for probe, task in domain.items()
            if task > 0
        ),
        outside={
            probe: OutsideMetrics(
                final=final[probe],
                mean_over_tasks=_mean(row[probe] for row in scores),
                gain_over_random=_difference(final[probe], baseline[probe]),
            )
            for probe, task in task_of.items()
            if task is None
        },
    )


def _mean(values: Iterable[float | None]) -> float | None:
    present = _all_present(values)
    return fmean(present) if present else None


def _best(values: Iterable[float | None]) -> float | None:
    present = _all_present(values)
    return max(present) if present else None


def _all_present(values: Iterable[float | None]) -> list[float]:
    """Return all values, or an empty list if any is None: a mean of the rest would mislead."""
    listed = list(values)
    present = [value for value in listed if value is not None]
    return present if len(present) == len(listed) else []


def _difference(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right
