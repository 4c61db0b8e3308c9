"""Synaptic intelligence against a slow transcription and a path integral worked out by hand."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers.penalties import Pair, context_of
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.spec import RunSpec
from rscl_bench.strategies.si import SI, SIParams
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import State, differing, recipe


def si(**parameters: Any) -> RunSpec:
    return tiny_spec(recipe({"name": "mae"}, [{"name": "si", **parameters}]))


class Transcription(BaseSGDPlugin):  # type: ignore[misc]
    """Eq. 4 and 5 in double precision, one parameter tensor at a time.

    The gradient of the loss without the penalty is computed anew at every step, on a copy of the
    model; ``with_penalty`` integrates the gradient that the optimiser got, which is wrong.

    Attributes:
        paths: ω at the end of each task.
        importances: Ω after each task.
    """

    def __init__(self, damping: float, with_penalty: bool = False) -> None:
        super().__init__()
        self.damping, self.with_penalty = damping, with_penalty
        self.paths: list[State] = []
        self.importances: list[State] = []

    def values(self, trainer: Any) -> State:
        named = trainer.model.named_parameters()
        return {name: p.detach().double().clone() for name, p in named if p.requires_grad}

    def before_training_exp(self, trainer: Any, **_: Any) -> None:
        self.start = self.values(trainer)
        self.path = {name: torch.zeros_like(value) for name, value in self.start.items()}

    def before_update(self, trainer: Any, **_: Any) -> None:
        self.before = self.values(trainer)
        model = trainer.model
        if not self.with_penalty:
            model = copy.deepcopy(model)
            model.zero_grad()
            model(trainer.views, trainer._generator("objective")).loss.backward()
        named = model.named_parameters()
        self.gradient = {name: p.grad.double().clone() for name, p in named if p.requires_grad}

    def after_update(self, trainer: Any, **_: Any) -> None:
        for name, value in self.values(trainer).items():
            self.path[name] -= self.gradient[name] * (value - self.before[name])

    def after_training_exp(self, trainer: Any, **_: Any) -> None:
        importance = {}
        for name, end in self.values(trainer).items():
            earlier = self.importances[-1][name] if self.importances else 0.0
            new = self.path[name] / ((end - self.start[name]) ** 2 + self.damping)
            importance[name] = (earlier + new).clamp(min=0)
        self.paths.append(self.path)
        self.importances.append(importance)


def close(importance: list[Tensor], expected: State) -> bool:
    """Return whether importances agree but for rounding of sums over signed steps."""
    largest = max(float(value.max()) for value in expected.values())
    return all(
        torch.allclose(mine.double(), value, rtol=1e-3, atol=1e-5 * largest)
        for mine, value in zip(importance, expected.values(), strict=True)
    )


@pytest.mark.parametrize("parameters", [{}, {"weight": 300.0}, {"weight": 30.0, "damping": 1e-5}])
def test_importance_equals_a_transcription(parameters: dict[str, float]) -> None:
    reference = Transcription(parameters.get("damping", 1e-3))
    template = start(si(**parameters), plugins=[reference])
    for task in range(3):
        train(template, [task])
        penalty = template.strategies[0]
        assert close(penalty.curvature, reference.importances[task])
    signs = torch.cat([value.flatten() for path in reference.paths for value in path.values()])
    assert (signs < 0).any()
    assert (signs > 0).any()


def test_penalty_is_not_in_the_path() -> None:
    right, wrong = Transcription(1e-3), Transcription(1e-3, with_penalty=True)
    template = start(si(weight=3000.0), plugins=[right, wrong])
    train(template)
    penalty = template.strategies[0]
    assert close(penalty.curvature, right.importances[2])
    assert not close(penalty.curvature, wrong.importances[2])


def test_anchor_is_the_end_of_the_last_task() -> None:
    template = start(si())
    for task in range(3):
        (end,) = train(template, [task])
        penalty = template.strategies[0]
        names = [name for name, p in template.model.named_parameters() if p.requires_grad]
        assert any(name.startswith("decoder.") for name in names)
        for name, anchor in zip(names, penalty.anchor, strict=True):
            assert torch.equal(anchor, end[name])


def task_by_hand(strategy: SI, model: Pair, steps: list[tuple[float, float]]) -> None:
    """Run the hooks of one task, with the gradient (10, 100) and these movements."""
    trainer: Any = SimpleNamespace(loss=None)
    strategy.before_training_exp(trainer)
    for first, second in steps:
        model.zero_grad()
        trainer.loss = model.loss()
        strategy.before_backward(trainer)
        trainer.loss.backward()
        strategy.after_backward(trainer)
        with torch.no_grad():
            model.first.add_(first)
            model.second.add_(second)
        strategy.after_update(trainer)
    strategy.after_training_exp(trainer)


def importance(strategy: SI) -> list[float]:
    return [float(value) for value in strategy.curvature]


def test_path_integral_by_hand() -> None:
    """ω = −g Σ Δθ for a constant gradient, whatever the penalty pulls; Ω grows, and never below 0.

    First task: Δ = (−1, 0.5), so ω = (10, −50), Ω = (10 / (1 + 1), max(0, −50 / (0.25 + 1))).
    Second: Δ = (−2, −1) of two steps, ω = (20, 100), Ω = (5 + 20 / (4 + 1), 100 / (1 + 1)).
    Third: Δ = (0, 1), ω = (0, −100), Ω = (9, max(0, 50 − 100 / 2)).
    Fourth: Δ = (0.5, 0), ω = (−5, 0), Ω = (9 − 5 / 1.25, 0): a later task takes away again.
    """
    model = Pair(0.0, 0.0)
    strategy = SI(SIParams(weight=7.0, damping=1.0), context_of(model))
    task_by_hand(strategy, model, [(-1.0, 0.5)])
    assert importance(strategy) == [5.0, 0.0]
    task_by_hand(strategy, model, [(-3.0, -0.5), (1.0, -0.5)])
    assert importance(strategy) == [9.0, 50.0]
    task_by_hand(strategy, model, [(0.0, 1.0)])
    assert importance(strategy) == [9.0, 0.0]
    task_by_hand(strategy, model, [(0.5, 0.0)])
    assert importance(strategy) == [5.0, 0.0]


def test_path_starts_anew_in_every_task() -> None:
    """A task without a step adds nothing."""
    model = Pair(0.0, 0.0)
    strategy = SI(SIParams(damping=1.0), context_of(model))
    task_by_hand(strategy, model, [(-1.0, -1.0)])
    before = importance(strategy)
    task_by_hand(strategy, model, [])
    assert importance(strategy) == before == [5.0, 50.0]


def test_weight_zero_is_fine_tuning_to_the_last_bit() -> None:
    held, plain = train(start(si(weight=0.0))), train(start(tiny_spec()))
    for one, other in zip(held, plain, strict=True):
        assert not differing(one, other)


def test_more_weight_holds_more() -> None:
    def moved(weight: float) -> float:
        first, second = train(start(si(weight=weight)), [0, 1])
        return sum(float((second[name] - first[name]).square().sum()) for name in first)

    assert moved(1e4) < moved(1e2) < moved(0.0)
