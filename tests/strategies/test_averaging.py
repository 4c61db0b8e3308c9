"""Averages of weights, at every step and at task ends, against loops over single numbers."""

from typing import Any

import pytest
import torch
from helpers.backbones import RESNET
from helpers.small import SMALL
from torch import Tensor, nn

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.errors import SpecError
from rscl_bench.strategies.ema import average
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import State, differing, recipe, state_of


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Keeps the state of the objective after every update and before the averaging of a task."""

    def __init__(self) -> None:
        super().__init__()
        self.updates: list[State] = []

    def after_update(self, trainer: Any, **_: Any) -> None:
        self.updates.append(state_of(trainer.model))


def naive(old: Tensor, new: Tensor, weight: float) -> Tensor:
    """Return (1 − w) old + w new in double precision; integers are taken from ``new``."""
    if not old.is_floating_point():
        return new
    return (1 - weight) * old.double() + weight * new.double()


def assert_near(state: State, expected: dict[str, Tensor]) -> None:
    for name, value in expected.items():
        torch.testing.assert_close(state[name].double(), value.double(), rtol=1e-5, atol=1e-7)


def method(strategy: dict[str, Any], objective: str = "mae") -> Any:
    return recipe({"name": objective, **SMALL.get(objective, {})}, [strategy])


# The moving average


@pytest.mark.parametrize("backbone", [None, RESNET])
def test_ema_is_the_average_of_all_updates(backbone: Any) -> None:
    """As in the authors' ``update_running_model``: over the state, from the untrained model."""
    objective = "mae" if backbone is None else "barlow-twins"
    spec = tiny_spec(method({"name": "ema", "momentum": 0.7}, objective), backbone=backbone)
    watch = Watch()
    trainer = start(spec, plugins=[watch])
    expected = state_of(trainer.model.encoder)
    train(trainer)
    assert len(watch.updates) == 12
    for update in watch.updates:
        expected = {n: naive(v, update[f"encoder.{n}"], 0.3) for n, v in expected.items()}
    assert_near(state_of(trainer.probed_encoder), expected)
    assert trainer.probed == "average"
    assert differing(state_of(trainer.probed_encoder), state_of(trainer.model.encoder))


def test_ema_leaves_training_alone() -> None:
    acting = train(start(tiny_spec(method({"name": "ema"}))))
    for one, other in zip(acting, train(start(tiny_spec())), strict=True):
        assert not differing(one, other)


def test_average_without_momentum_is_the_trained_encoder() -> None:
    trainer = start(tiny_spec(method({"name": "ema", "momentum": 0.0})))
    train(trainer)
    assert not differing(state_of(trainer.probed_encoder), state_of(trainer.model.encoder))
    assert not any(p.requires_grad for p in trainer.probed_encoder.parameters())


def test_integers_are_copied() -> None:
    old, new = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    new(torch.tensor([[1.0, 2.0], [3.0, 8.0]]))
    average(old, new, 0.5)  # type: ignore[arg-type]
    assert old.num_batches_tracked == 1
    assert old.running_mean is not None
    torch.testing.assert_close(old.running_mean, torch.tensor([0.1, 0.25]))


def test_two_encoders_to_probe_are_refused() -> None:
    two = recipe(
        {"name": "byol", **SMALL["byol"], "probed": "teacher"}, [{"name": "ema", "momentum": 0.5}]
    )
    with pytest.raises(SpecError, match=r"names 2 encoders to probe: ema, objective.probed"):
        start(tiny_spec(two))


# Averages at task ends


def ends(strategy: dict[str, Any], objective: str = "mae", **more: Any) -> tuple[Any, ...]:
    """Return the untrained state, the states before each averaging, and those after."""
    watch = Watch()
    trainer = start(tiny_spec(method(strategy, objective), **more), plugins=[watch])
    before = state_of(trainer.model)
    after = train(trainer)
    per_task = len(watch.updates) // 3
    return before, watch.updates[per_task - 1 :: per_task], after, trainer


@pytest.mark.parametrize(
    ("params", "weights"),
    [({}, (0.5, 0.5)), ({"alpha": 0.7}, (0.7, 0.7)), ({"rule": "mean"}, (1 / 2, 1 / 3))],
)
def test_task_ends_in_the_mixture(params: dict[str, Any], weights: tuple[float, ...]) -> None:
    _, trained, after, _ = ends({"name": "weight-averaging", **params})
    assert not differing(trained[0], after[0])
    for task in (1, 2):
        expected = {
            n: naive(v, trained[task][n], weights[task - 1]) for n, v in after[task - 1].items()
        }
        assert_near(after[task], expected)
        assert differing(trained[task], after[task])


def test_mean_counts_all_tasks_alike() -> None:
    """The average after task t is the mean of what training made of the weights in t tasks."""
    _, trained, after, _ = ends({"name": "weight-averaging", "rule": "mean"})
    for count in (2, 3):
        mean = {
            n: torch.stack([s[n].double() for s in trained[:count]]).mean(dim=0) for n in after[0]
        }
        assert_near(after[count - 1], mean)


def test_encoder_alone() -> None:
    _, trained, after, _ = ends({"name": "weight-averaging", "part": "encoder"})
    changed = differing(trained[1], after[1])
    assert changed
    assert all(name.startswith("encoder.") for name in changed)


def test_next_task_starts_from_the_average() -> None:
    watch = Watch()
    spec = tiny_spec(
        method({"name": "weight-averaging"}),
        assignments=["training.learning_rate=1e-12", "training.weight_decay=0"],
    )
    trainer = start(spec, plugins=[watch])
    first, second, _ = train(trainer)
    for name, value in watch.updates[4].items():  # the first update of the second task
        torch.testing.assert_close(value, first[name], rtol=1e-5, atol=1e-8)
    for name, value in watch.updates[8].items():
        torch.testing.assert_close(value, second[name], rtol=1e-5, atol=1e-8)


def test_alpha_of_one_is_plain_training_to_the_last_bit() -> None:
    _, _, after, _ = ends({"name": "weight-averaging", "alpha": 1.0})
    for one, other in zip(after, train(start(tiny_spec())), strict=True):
        assert not differing(one, other)


def test_alpha_of_zero_keeps_the_first_task() -> None:
    _, _, after, _ = ends({"name": "weight-averaging", "alpha": 0.0})
    for later in after[1:]:
        assert not differing(after[0], later)


def test_statistics_are_averaged_and_teachers_are_not() -> None:
    _, trained, after, trainer = ends({"name": "weight-averaging", "alpha": 0.25}, "byol")
    names = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    names |= {n for n in after[0] if "running" in n and not n.startswith("teacher")}
    assert any("running_mean" in name for name in names)
    changed = differing(trained[2], after[2])
    assert set(changed) <= names
    assert any("running" in name for name in changed)
    for name in names:
        expected = naive(after[1][name], trained[2][name], 0.25)
        torch.testing.assert_close(after[2][name].double(), expected, rtol=1e-5, atol=1e-7)
