"""The contract of extension: a stream that goes on task by task ends like one run in one go."""

from pathlib import Path

from rscl_bench.engine.checkpointing.state import Snapshot
from rscl_bench.engine.state_file import LastState, last_state, parsed_state, state_bytes
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.errors import TrainingError
from rscl_bench.spec import RunSpec
from rscl_bench.testing.resume import Training, final_state, global_streams
from rscl_bench.testing.tiny import differing, start, tiny_stores, train

_FILE = Path("state.safetensors")


def check_extension(name: str, spec: RunSpec, expected: Training) -> None:
    """Check that extending a run by each of its later tasks changes no bit of training.

    A new trainer takes over after each task. It has the tiles of its task, and of earlier tasks
    only the tiles that `Strategy.kept_tiles` names. The state passes through the bytes of its file.

    Args:
        name: The component as a message names it.
        spec: The run, on `tiny_stores`.
        expected: The same run from `train_uninterrupted`.

    Raises:
        AssertionError: If the trainings differ, or a tile is read that was not kept.
    """
    if any(strategy.whole_stream for strategy in expected.trainer.strategies):
        return
    try:
        with global_streams(3):
            extended = _task_by_task(spec)
    except TrainingError as error:
        raise AssertionError(f"{name} cannot be extended: {error}") from error
    lost = differing(expected.final, final_state(extended))
    assert not lost, (
        f"{name} trains differently when the stream goes on from its last state "
        f"({', '.join(lost[:3])}). Return from state_dict all state that outlives a task, and "
        "depend on no number of tasks, or declare whole_stream = True."
    )
    for counter in ("steps_taken", "final_loss"):
        before, after = getattr(expected.trainer, counter), getattr(extended, counter)
        assert before == after, f"{name}: extension changes {counter} from {before} to {after}."


def _task_by_task(spec: RunSpec) -> SelfSupervisedTrainer:
    """Train each task with a trainer of its own, and return the last trainer."""
    tasks = spec.scenario.tasks
    stores = tiny_stores(len(tasks), bands=[len(task.bands) for task in tasks])
    before: tuple[LastState, Snapshot] | None = None
    for number, store in enumerate(stores):
        known = tasks[: number + 1]
        scenario = spec.scenario.model_copy(update={"tasks": known})
        kept = [] if before is None else before[0].stores(_FILE)
        trainer = start(spec.model_copy(update={"scenario": scenario}), [*kept, store])
        if before is not None:
            trainer.restore(Snapshot(before[0].tensors, before[1].metadata))
        train(trainer, [number])
        content = state_bytes(*last_state(trainer, "contract", {}, [task.name for task in known]))
        before = parsed_state(content, _FILE), trainer.snapshot()
    return trainer
