"""The contract of resuming: an interrupted stream ends in the same bits as an uninterrupted one."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from rscl_bench.engine.checkpointing.state import Snapshot, optimiser_tensors, with_prefix
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.randomness import seeded
from rscl_bench.spec import RunSpec
from rscl_bench.testing.tiny import State, differing, start, train


class StopPoint(NamedTuple):
    """A point of the stream at which training is interrupted.

    Attributes:
        task: Index of the task, from 0.
        step: Steps of the task that are done; 0 stands for the point before the task.
    """

    task: int
    step: int

    def __str__(self) -> str:
        """Return the point as a message names it."""
        if self.step == 0:
            return f"between task {self.task} and task {self.task + 1}"
        return f"after step {self.step} of task {self.task + 1}"


class Remedy(NamedTuple):
    """What the author of a component must do about lost state.

    Attributes:
        between: For state that is lost between two tasks.
        within: For state that is lost within a task.
    """

    between: str
    within: str


@dataclass(frozen=True)
class Training:
    """An uninterrupted training.

    Attributes:
        trainer: The trainer after the last task.
        states: The objective's parameters and buffers after each task.
        final: All tensors on which a next task would depend, and the optimiser's.
    """

    trainer: SelfSupervisedTrainer
    states: list[State]
    final: State


@contextmanager
def global_streams(seed: int) -> Iterator[None]:
    """Seed the global random streams of Python, NumPy and torch, and restore them afterwards."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        with seeded(seed, "global"):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


def train_uninterrupted(spec: RunSpec, global_seed: int = 0) -> Training:
    """Train a run on all its tasks.

    Args:
        spec: The run.
        global_seed: Seed of the global random streams, on which training must not depend.
    """
    with global_streams(global_seed):
        trainer = start(spec)
        states = train(trainer)
    return Training(trainer, states, final_state(trainer))


def check_resume(name: str, spec: RunSpec, expected: Training, remedy: Remedy) -> None:
    """Check that interruptions within tasks and between tasks change no bit of training.

    A new trainer resumes from each snapshot, which passes through the bytes of safetensors. The
    global random streams differ from those of the uninterrupted training.

    Args:
        name: The component as a message names it.
        spec: The run.
        expected: The same run from `train_uninterrupted`.
        remedy: Ends the message about lost state.

    Raises:
        AssertionError: If the trainings differ. The message names the cause.
    """
    points = stop_points(expected.trainer.steps_taken)
    resumed = train_interrupted(spec, points)
    lost = differing(expected.final, final_state(resumed))
    if lost:
        _check_repeatable(name, spec, expected)
        _check_each_point(name, spec, expected, points, remedy)
    assert not lost, f"{name} trains differently after several interruptions ({_first(lost)})."
    for counter in ("steps_taken", "final_loss"):
        before, after = getattr(expected.trainer, counter), getattr(resumed, counter)
        assert before == after, f"{name}: interruptions change {counter} from {before} to {after}."


def stop_points(steps: Sequence[int]) -> list[StopPoint]:
    """Return the points at which `check_resume` interrupts training, in the order of the stream.

    The first task is interrupted after its first step, the second after its first epoch of two and
    one step later, every later one after its last step. Training is also interrupted between tasks.

    Args:
        steps: Number of steps of each task; may be 0.
    """
    points = []
    for task, count in enumerate(steps):
        within = {0: (1,), 1: (count // 2, count // 2 + 1)}.get(task, (count,))
        points += [StopPoint(task, 0)] if task else []
        points += [StopPoint(task, step) for step in within if 0 < step <= count]
    return points


def train_interrupted(spec: RunSpec, points: Sequence[StopPoint]) -> SelfSupervisedTrainer:
    """Train a run on all its tasks, interrupted at each point.

    Args:
        spec: The run.
        points: In the order of the stream.

    Returns:
        The last of the trainers, after the last task.
    """
    snapshot: Snapshot | None = None
    with global_streams(1):
        for point in [*points, StopPoint(len(spec.scenario.tasks), 0)]:
            trainer = start(spec)
            if snapshot is not None:
                _restore(trainer, snapshot)
            first = 0 if snapshot is None else snapshot.metadata["task"]
            snapshot = _train_until(trainer, first, point)
    return trainer


class _StoppedError(Exception):
    """Ends training at a step."""


def _train_until(trainer: SelfSupervisedTrainer, first: int, point: StopPoint) -> Snapshot:
    """Train from the task ``first`` to a point, and return the snapshot of the point."""
    if point.step == 0:
        train(trainer, range(first, point.task))
        return _through_bytes(trainer.snapshot())
    snapshots: list[Snapshot] = []

    def stop(task: int, step: int, _steps: int, _loss: Tensor) -> None:
        if (task, step) == point:
            snapshots.append(_through_bytes(trainer.snapshot()))
            raise _StoppedError

    trainer.on_step = stop
    try:
        train(trainer, range(first, point.task + 1))
    except _StoppedError:
        return snapshots[0]
    raise AssertionError(f"Resumed training has no point {point}.")


def _through_bytes(snapshot: Snapshot) -> Snapshot:
    tensors = {name: value.contiguous() for name, value in snapshot.tensors.items()}
    return Snapshot(load_safetensors(save_safetensors(tensors)), snapshot.metadata)


def _restore(trainer: SelfSupervisedTrainer, snapshot: Snapshot) -> None:
    trainer.restore(snapshot)
    if snapshot.metadata["step"] == 0:  # within a task, the trainer restores the rest later
        lost = differing(snapshot.tensors, trainer.snapshot().tensors)
        assert not lost, (
            f"load_state_dict does not restore what state_dict returned ({_first(lost)})."
        )


def final_state(trainer: SelfSupervisedTrainer) -> State:
    """Return all tensors on which a next task would depend, and the optimiser's."""
    optimiser = with_prefix("optimiser", optimiser_tensors(trainer.optimizer))
    tensors = {**trainer.snapshot().tensors, **optimiser}
    return {name: value.detach().clone() for name, value in tensors.items()}


def _check_repeatable(name: str, spec: RunSpec, expected: Training) -> None:
    again = train_uninterrupted(spec, global_seed=2)
    changed = differing(expected.final, again.final)
    assert not changed, (
        f"{name} trains differently when the global random streams of Python, NumPy and torch "
        f"differ ({_first(changed)}). Draw from the generator that is passed in or from "
        "rscl_bench.randomness, and keep no state outside the instance."
    )


def _check_each_point(
    name: str, spec: RunSpec, expected: Training, points: Sequence[StopPoint], remedy: Remedy
) -> None:
    """Find the point at which state is lost; between tasks first, where less may be lost."""
    for point in sorted(points, key=lambda point: point.step > 0):
        lost = differing(expected.final, final_state(train_interrupted(spec, [point])))
        mend = remedy.within if point.step else remedy.between
        assert not lost, (
            f"{name} trains differently after an interruption {point} ({_first(lost)}). {mend}"
        )


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:3])
