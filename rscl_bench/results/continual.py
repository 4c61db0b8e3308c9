"""Continual-learning metrics of a score matrix, None where undefined."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean

from rscl_bench.spec import Spec

ScoreRow = Mapping[str, float | None]


class OutsideMetrics(Spec):
    """One probe of no task's domain.

    Attributes:
        final: ``R[T]``.
        mean_over_tasks: ``mean_t R[t]``.
        gain_over_random: ``R[T] − b``, b the untrained encoder's score.
    """

    final: float | None
    mean_over_tasks: float | None
    gain_over_random: float | None


class ContinualMetrics(Spec):
    """Metrics of one kind of score; differences are in the scores' own unit.

    With several domain probes of one task, each is a column j of its own. None where the formula
    has no term or needs a score that is missing.

    Attributes:
        final_average: ``mean_j R[T][j]`` (Lopez-Paz & Ranzato 2017, ACC).
        average_incremental: ``mean_t mean_{j<=t} R[t][j]``, over the t with a domain probe seen
            (the running mean of ACC; Díaz-Rodríguez et al. 2018 weigh all pairs j <= t alike).
        backward_transfer: ``mean_{j<T} (R[T][j] − R[j][j])`` (Lopez-Paz & Ranzato 2017, BWT).
        forgetting: ``mean_{j<T} (max_{j<=l<=T−1} R[l][j] − R[T][j])`` (Chaudhry et al. 2018, whose
            maximum is over all l < T; before task j the encoder has nothing of it to forget).
        forward_transfer: ``mean_{j>=2} (R[j−1][j] − b_j)``, b_j the untrained encoder's score
            (Lopez-Paz & Ranzato 2017, FWT).
        outside: By name, the probes of no task's domain; the metrics above leave them out.
    """

    final_average: float | None
    average_incremental: float | None
    backward_transfer: float | None
    forgetting: float | None
    forward_transfer: float | None
    outside: dict[str, OutsideMetrics]


def continual_metrics(
    scores: Sequence[ScoreRow], task_of: Mapping[str, int | None], baseline: ScoreRow
) -> ContinualMetrics:
    """Return the metrics of one run.

    Args:
        scores: R, one row after each task, each by probe; None where a score is undefined.
        task_of: For each probe the task (from 0, in the order of the stream) whose domain its
            tiles are from; None for an outside domain.
        baseline: b, the untrained encoder's score by probe.

    Returns:
        The metrics, in the unit of the scores.

    Raises:
        ValueError: If there is no row, or a task's index is not one of a row.
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
    """Return the values, or none at all if one is missing: a mean over fewer would mislead."""
    listed = list(values)
    present = [value for value in listed if value is not None]
    return present if len(present) == len(listed) else []


def _difference(left: float | None, right: float | None) -> float | None:
    return None if left is None or right is None else left - right
