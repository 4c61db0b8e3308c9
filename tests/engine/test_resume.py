"""Resuming: a run that was interrupted anywhere ends in the same bits as one that was not."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers.joint_embeddings import SMALL as JOINT_EMBEDDINGS
from helpers.small import COMPOSED, SMALL
from safetensors.torch import load, save
from torch import Tensor

from rscl_bench import registry
from rscl_bench.declarations import load_method
from rscl_bench.engine.checkpointing.state import Snapshot
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.spec import Method, RunSpec
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import State, differing, recipe, state_of

STREAM = 3  # tasks, of four steps in two epochs each


class InterruptionError(Exception):
    """Ends training in the middle."""


class StopAt:
    """Keeps a snapshot, through bytes, after a step of a task, and ends training there."""

    def __init__(self, template: SelfSupervisedTrainer, task: int, step: int) -> None:
        self.template, self.place = template, (task, step)
        self.kept: Snapshot | None = None
        template.on_step = self.look

    def look(self, task: int, step: int, _steps: int, _loss: Tensor) -> None:
        if (task, step) == self.place:
            self.kept = through_bytes(self.template.snapshot())
            raise InterruptionError


def through_bytes(snapshot: Snapshot) -> Snapshot:
    tensors = {name: value.contiguous() for name, value in snapshot.tensors.items()}
    return Snapshot(load(save(tensors)), snapshot.metadata)


def everything(template: SelfSupervisedTrainer) -> State:
    """Return weights of objective and heads, strategies' state, and the last optimiser's."""
    snapshot = template.snapshot()
    assert snapshot.metadata["task"] == STREAM
    state = {name: value.detach().clone() for name, value in snapshot.tensors.items()}
    rows = template.optimizer.state_dict()["state"]
    moments = {f"{n}.{key}": v.clone() for n, row in rows.items() for key, v in row.items()}
    return {**state, **moments, **state_of(template.model)}


def interrupted(spec: RunSpec, places: Sequence[tuple[int, int]]) -> SelfSupervisedTrainer:
    """Train, interrupted at each place, in a new template every time; step 0 is between tasks."""
    kept: Snapshot | None = None
    for task, step in [*places, (STREAM, 0)]:
        template = start(spec)
        if kept is not None:
            template.restore(kept)
        first = 0 if kept is None else kept.metadata["task"]
        stop = StopAt(template, task, step)
        if step == 0:
            train(template, range(first, task))
            kept = through_bytes(template.snapshot())
        else:
            with pytest.raises(InterruptionError):
                train(template, range(first, STREAM))
            kept = stop.kept
    return template


def check(method: str | Method, *assignments: str, places: Sequence[tuple[int, int]]) -> None:
    spec = tiny_spec(method, tasks=STREAM, assignments=assignments)
    whole = start(spec)
    train(whole)
    again = interrupted(spec, places)
    assert not differing(everything(whole), everything(again))
    for name in ("steps_taken", "final_loss"):
        assert getattr(whole, name) == getattr(again, name)


# After the first step, at the start of a task, at the end of an epoch, within one, after the last.
PLACES = ((0, 1), (1, 0), (1, 2), (1, 3), (2, 0), (2, 4))


@pytest.mark.parametrize("name", registry.entries("objectives"))
def test_objective(name: str) -> None:
    check(recipe({"name": name, **SMALL.get(name, {})}), places=((1, 2), (2, 0), (2, 3)))


STRATEGIES: list[dict[str, Any]] = [
    *[{"name": name} for name in registry.entries("strategies")],
    {"name": "replay", "mode": "batch"},
    {"name": "ewc", "mode": "online"},
    {"name": "model-mixup", "keep_projector": False},
]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=str)
def test_strategy(strategy: dict[str, Any]) -> None:
    places = [place for place in PLACES if strategy["name"] != "joint" or place[0] == 0]
    check(recipe({"name": "mae"}, [strategy]), places=places)


@pytest.mark.parametrize("name", COMPOSED)
def test_composed(name: str) -> None:
    method = load_method(name)
    small = [f"objective.{key}={value}" for key, value in SMALL[method.objective.name].items()]
    check(method, *small, places=((1, 2), (2, 1)))


def test_queue_and_memory_of_a_task_matter() -> None:
    """What is neither parameter nor buffer: without it, training goes on differently."""
    for name in ("swav", "deepcluster-v2"):
        spec = tiny_spec(recipe({"name": name, **JOINT_EMBEDDINGS[name]}), tasks=STREAM)
        template = start(spec)
        stop = StopAt(template, 1, 3)
        with pytest.raises(InterruptionError):
            train(template)
        assert stop.kept is not None
        fresh = start(spec).model
        fresh.before_task(1, lambda _: [])
        without = fresh.task_state()
        kept = {n: v for n, v in stop.kept.tensors.items() if n.startswith("task.")}
        assert kept.keys() != {f"task.{n}" for n in without} or any(
            not torch.equal(kept[f"task.{n}"], without[n]) for n in without
        )
