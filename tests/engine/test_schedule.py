"""A constant rate over the stream, and annealing before each probe on a branch."""

import math
from typing import Any

import pytest

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.errors import SpecError
from rscl_bench.models.optimiser import constant_rate
from rscl_bench.testing import check_strategy, start, tiny_spec, train
from rscl_bench.testing.tiny import State, differing, recipe, state_of

CONSTANT = ("training.schedule=constant",)
ANNEALED = (*CONSTANT, "training.anneal=0.5")


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Keeps rate and weights of every step, by task and step; may end a task early."""

    def __init__(self, most: int | None = None) -> None:
        super().__init__()
        self.rates: list[float] = []
        self.weights: dict[tuple[int, int], State] = {}
        self.most = most

    def before_training_iteration(self, trainer: Any, **_: Any) -> None:
        self.rates.append(trainer.optimizer.param_groups[0]["lr"])
        self.weights[trainer.task, trainer.step] = state_of(trainer.model)

    def after_training_iteration(self, trainer: Any, **_: Any) -> None:
        if self.most is not None and trainer.step + 1 == self.most:
            trainer._stop_training = True


def watched(*assignments: str, method: Any = "finetune") -> tuple[Watch, list[State]]:
    watch = Watch()
    return watch, train(start(tiny_spec(method, assignments=assignments), plugins=[watch]))


def test_rate_is_constant_after_one_warmup() -> None:
    """A task has four steps; the warm-up of half an epoch has one."""
    watch, _ = watched(*CONSTANT)
    assert watch.rates == [0.0, *[1e-3] * 11]


def test_rate_falls_before_each_probe() -> None:
    watch, _ = watched(*CONSTANT, "training.anneal=0.75")
    fall = [1e-3 * (1 - math.sqrt(n / 3)) for n in range(3)]
    assert watch.rates == pytest.approx([0.0, *fall, 1e-3, *fall, 1e-3, *fall], abs=1e-12)


@pytest.mark.parametrize(("steps", "warmup", "annealed"), [(10, 3, 4), (7, 0, 7), (5, 2, 0)])
def test_rate_by_hand(steps: int, warmup: int, annealed: int) -> None:
    for step in range(steps):
        expected = 2.0
        if step < warmup:
            expected = 2.0 * step / warmup
        elif step >= steps - annealed:
            expected = 2.0 * (1 - ((step - steps + annealed) / annealed) ** 0.5)
        assert constant_rate(step, steps, warmup, 2.0, annealed) == pytest.approx(expected)


def test_next_task_goes_on_from_before_the_annealing() -> None:
    watch, ends = watched(*ANNEALED)
    for task in (1, 2):
        assert not differing(watch.weights[task, 0], watch.weights[task - 1, 2])
        assert differing(watch.weights[task, 0], ends[task - 1])


def test_stream_is_that_of_tasks_without_their_annealed_steps() -> None:
    """The trunk equals, to the last bit, a stream at a constant rate that ends each task there."""
    watch, ends = watched(*ANNEALED)
    short = Watch(most=2)
    expected = train(start(tiny_spec(assignments=CONSTANT), plugins=[short]))
    for task in (1, 2):
        assert not differing(watch.weights[task, 0], expected[task - 1])
    assert not differing(watch.weights[2, 2], expected[2])
    assert differing(ends[2], expected[2])


def test_stated_default_is_the_default_to_the_last_bit() -> None:
    _, stated = watched("training.schedule=cosine")
    _, plain = watched()
    for one, other in zip(stated, plain, strict=True):
        assert not differing(one, other)


def test_resuming_and_extension_keep_the_branch() -> None:
    check_strategy("replay", recipe({"name": "mae"}, [{"name": "replay"}]), ANNEALED)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model-mixup", "si", "ema"])
def test_strategies_with_heads_paths_and_averages(name: str) -> None:
    check_strategy(name, recipe({"name": "mae"}, [{"name": name}]), ANNEALED)


def test_heads_go_back_with_the_encoder() -> None:
    method = recipe({"name": "mae"}, [{"name": "model-mixup"}])
    trainer = start(tiny_spec(method, assignments=ANNEALED))
    train(trainer, [0, 1])
    branch = trainer.snapshot().tensors
    names = [name for name in branch if name.startswith("branch.head0.")]
    assert names
    trainer._return_to_branch()
    head = trainer.strategies[0].head
    assert head is not None
    now = {f"branch.head0.{name}": value for name, value in state_of(head).items()}
    assert not differing(now, {name: branch[name] for name in names})
    assert not any(name.startswith("branch.") for name in trainer.snapshot().tensors)


def test_joint_training_keeps_its_annealed_weights() -> None:
    _, ends = watched(*ANNEALED, method="joint")
    for later in ends[1:]:
        assert not differing(ends[0], later)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (("training.anneal=0.2",), "anneal needs a constant rate; set schedule = 'constant'"),
        ((*CONSTANT, "training.anneal=0.9"), "overlap in 2 epochs; lower one of them"),
        ((*CONSTANT, "training.anneal=0"), "Input should be greater than 0"),
        (("training.schedule=linear",), "Input should be 'cosine' or 'constant'"),
    ],
)
def test_unfit_schedule_is_refused(assignments: tuple[str, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        tiny_spec(assignments=assignments)


def test_averaging_at_task_ends_is_refused_with_a_branch() -> None:
    method = recipe({"name": "mae"}, [{"name": "weight-averaging"}])
    start(tiny_spec(method, assignments=CONSTANT))
    with pytest.raises(SpecError, match="no task goes on after an annealing"):
        start(tiny_spec(method, assignments=ANNEALED))
