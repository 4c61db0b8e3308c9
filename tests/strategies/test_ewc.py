"""EWC against autograd on its formula and a naive Fisher information, image by image."""

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from helpers.paths import BROKEN
from helpers.penalties import Pair, context_of
from torch import Tensor, nn

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.errors import SpecError
from rscl_bench.objectives.base import ObjectiveOutput
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import RunSpec
from rscl_bench.strategies.ewc import EWC, EWCParams
from rscl_bench.strategies.quadratic import QuadraticPenalty
from rscl_bench.strategies.si import SI, SIParams
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import differing, recipe, state_of


def ewc(*others: dict[str, Any], seed: int = 0, **parameters: Any) -> RunSpec:
    return tiny_spec(recipe({"name": "mae"}, [{"name": "ewc", **parameters}, *others]), seed=seed)


def step(penalty: QuadraticPenalty, loss: Tensor) -> Tensor:
    """Run a penalty's hooks around the backward pass of a loss, and return the loss it makes."""
    trainer: Any = SimpleNamespace(loss=loss)
    penalty.before_backward(trainer)
    trainer.loss.backward()
    penalty.after_backward(trainer)
    return cast("Tensor", trainer.loss.detach())


def move(model: nn.Module, values: list[Tensor]) -> None:
    """Set the trained parameters."""
    held = [p for p in model.parameters() if p.requires_grad]
    with torch.no_grad():
        for parameter, value in zip(held, values, strict=True):
            parameter.copy_(value)


# The penalty


@pytest.mark.parametrize("weight", [4.0, 0.5])
def test_penalty_by_hand(weight: float) -> None:
    """θ = (2, −1), F = (1, 3), θ* = (0, 1): Σ F (θ − θ*)² = 16, F (θ − θ*) = (2, −6)."""
    model = Pair(0.0, 1.0)
    penalty = EWC(EWCParams(weight=weight), context_of(model))
    penalty.hold([torch.tensor([1.0]), torch.tensor([3.0])])
    move(model, [torch.tensor([2.0]), torch.tensor([-1.0])])
    assert step(penalty, model.loss()) == -80 + weight / 2 * 16
    assert model.first.grad == 10 + weight * 2
    assert model.second.grad == 100 - weight * 6
    assert model.frozen.grad is None


def test_si_has_no_half() -> None:
    """c Σ Ω (θ − θ*)² with the same numbers: its gradient is 2 c Ω (θ − θ*)."""
    model = Pair(0.0, 1.0)
    penalty = SI(SIParams(weight=0.5), context_of(model))
    penalty.hold([torch.tensor([1.0]), torch.tensor([3.0])])
    move(model, [torch.tensor([2.0]), torch.tensor([-1.0])])
    assert step(penalty, model.loss()) == -80 + 0.5 * 16
    assert model.first.grad == 10 + 2
    assert model.second.grad == 100 - 6


@pytest.mark.parametrize("terms", [0, 1, 3])
def test_value_and_gradient_equal_autograd(terms: int) -> None:
    torch.manual_seed(terms)
    model = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 3)).double()
    images, weight = torch.randn(4, 5, dtype=torch.float64), 3.7
    penalty = EWC(EWCParams(weight=weight), context_of(model))
    held: list[tuple[list[Tensor], list[Tensor]]] = []
    for _ in range(terms):
        importance = [torch.rand_like(p) for p in model.parameters()]
        move(model, [torch.randn_like(p) for p in model.parameters()])
        held.append((importance, penalty.values()))
        penalty.hold_also([value.clone() for value in importance])
    move(model, [torch.randn_like(p) for p in model.parameters()])
    reference = copy.deepcopy(model)
    expected = reference(images).square().mean()
    for importance, anchor in held:
        for now, fisher, old in zip(reference.parameters(), importance, anchor, strict=True):
            expected = expected + weight / 2 * (fisher * (now - old) ** 2).sum()
    expected.backward()
    loss = step(penalty, model(images).square().mean())
    # The value is kept in float32.
    assert torch.allclose(loss, expected.detach(), rtol=1e-6)
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(mine.grad, theirs.grad, rtol=1e-12)


def test_penalty_within_training() -> None:
    """Loss and gradient of every step are those of the formula at the step's weights."""
    seen: list[tuple[int, float]] = []
    terms: list[tuple[list[Tensor], list[Tensor]]] = []

    class Check(BaseSGDPlugin):  # type: ignore[misc]
        def after_training_exp(self, trainer: Any, **_: Any) -> None:
            fisher = [value.float() for value in naive_fisher(trainer, 16)]
            terms.append((fisher, trainer.strategies[0].values()))

        def before_update(self, trainer: Any, **_: Any) -> None:
            model = copy.deepcopy(trainer.model)
            generator = trainer._generator("objective")
            plain = model(trainer.views, generator).loss
            value = torch.zeros(())
            for term in terms:
                held = [p for p in model.parameters() if p.requires_grad]
                for now, fisher, old in zip(held, *term, strict=True):
                    value = value + 50 / 2 * (fisher * (now - old) ** 2).sum()
            model.zero_grad()
            (plain + value).backward()
            assert torch.allclose(trainer.loss.detach().squeeze(), (plain + value).detach())
            for (name, theirs), ours in zip(
                model.named_parameters(), trainer.model.parameters(), strict=True
            ):
                if theirs.requires_grad:
                    assert theirs.grad is not None
                    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-3, atol=1e-6), name
            seen.append((trainer.task, float(value.detach())))

    train(start(ewc(weight=50.0), plugins=[Check()]))
    assert all(value == 0 for task, value in seen if task == 0)
    moved = [value for task, value in seen if task > 0]
    assert max(moved) > 1e-3
    assert moved[0] == 0  # at the first step the weights are where the first task ended


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_weight_zero_is_fine_tuning_to_the_last_bit(mode: str) -> None:
    held, plain = train(start(ewc(weight=0.0, mode=mode))), train(start(tiny_spec()))
    for one, other in zip(held, plain, strict=True):
        assert not differing(one, other)


def test_more_weight_holds_more() -> None:
    def moved(weight: float) -> float:
        first, second = train(start(ewc(weight=weight)), [0, 1])
        return sum(float((second[name] - first[name]).square().sum()) for name in first)

    assert moved(1e4) < moved(1e2) < moved(0.0)


@pytest.mark.parametrize("other", [{"name": "model-mixup"}, {"name": "data-mixup"}])
def test_order_of_composition_is_of_no_account(other: dict[str, Any]) -> None:
    held = {"name": "ewc", "weight": 1000.0}
    states = [
        train(start(tiny_spec(recipe({"name": "mae"}, strategies))))
        for strategies in ([held, other], [other, held])
    ]
    for one, same in zip(*states, strict=True):
        for name, value in one.items():
            assert torch.allclose(value, same[name], rtol=0, atol=1e-6), name


# What is held


def naive_fisher(template: Any, images: int, training: bool = False) -> list[Tensor]:
    """Return the mean squared gradient over single images, scaled to mean 1, of a fresh model copy.

    Args:
        template: At the end of a task.
        images: How many of the task's tiles.
        training: Mode of the model.
    """
    task, seed = template.task, template.seed
    count = len(template.stores[task])
    order = torch.randperm(count, generator=torch_generator("cpu", seed, "fisher images", task))
    model = copy.deepcopy(template.model).train(training)
    held = [p for p in model.parameters() if p.requires_grad]
    squares = [torch.zeros_like(p, dtype=torch.float64) for p in held]
    chosen = order.tolist()[:images]
    for number, index in enumerate(chosen):
        views = template.views_of([(task, torch.tensor([index]))], f"fisher {number}")
        model.zero_grad()
        model(views, torch_generator("cpu", seed, "fisher", task, number)).loss.backward()
        for total, p in zip(squares, held, strict=True):
            assert p.grad is not None
            total += p.grad.double() ** 2 / len(chosen)
    mean = torch.cat([total.flatten() for total in squares]).mean()
    return [total / mean for total in squares]


def close(first: list[Tensor], second: list[Tensor]) -> bool:
    pairs = zip(first, second, strict=True)
    return all(torch.allclose(a.double(), b.double(), rtol=1e-3, atol=1e-6) for a, b in pairs)


@pytest.mark.parametrize("images", [5, 16, 2000])
def test_fisher_equals_a_naive_loop(images: int) -> None:
    template = start(ewc(images=images, seed=3))
    earlier = [torch.zeros(())] * len(template.strategies[0].parameters())
    for task in range(2):
        train(template, [task])
        curvature = [value.clone() for value in template.strategies[0].curvature]
        importance = [now - old for now, old in zip(curvature, earlier, strict=True)]
        earlier = curvature
        assert close(importance, naive_fisher(template, images))
        values = torch.cat([value.flatten() for value in importance])
        assert values.double().mean() == pytest.approx(1.0, abs=1e-5)
        assert values.min() >= -1e-3  # a difference of sums
    assert not close(importance, naive_fisher(template, 4))


@pytest.mark.parametrize("mode", ["separate", "online"])
def test_task_without_any_gradient_has_no_penalty(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its information is 0 everywhere, and a mean of 0 scales nothing."""
    template = start(ewc(mode=mode, weight=10.0))
    (penalty,) = template.strategies
    forward = template.model.forward

    def flat(views: Any, generator: torch.Generator) -> ObjectiveOutput:
        output: ObjectiveOutput = forward(views, generator)
        return replace(output, loss=0 * output.loss)

    with monkeypatch.context() as context:
        context.setattr(template.model, "forward", flat)
        template.train_epochs = 0
        train(template, [0])
    assert all(torch.equal(value, torch.zeros_like(value)) for value in penalty.curvature)
    move(template.model, [p.detach() + 0.1 for p in penalty.parameters()])
    loss = sum((p.square().sum() for p in penalty.parameters()), torch.zeros(()))
    assert step(penalty, loss) == float(loss.detach())
    pairs = zip(penalty.gradients(), penalty.values(), strict=True)
    assert all(torch.equal(gradient, 2 * value) for gradient, value in pairs)


def test_fisher_is_not_the_squared_batch_gradient() -> None:
    """It averages squares: the squared mean, which a batch would give, is another thing."""
    template = start(ewc())
    train(template, [0])
    importance = template.strategies[0].curvature
    model = copy.deepcopy(template.model).eval()
    views = template.views_of([(0, torch.arange(16))], "batch")
    model(views, torch_generator("cpu", 0, "batch")).loss.backward()
    squares = [p.grad.square() for p in model.parameters() if p.grad is not None]
    mean = torch.cat([square.flatten() for square in squares]).mean()
    assert not close(importance, [square / mean for square in squares])


def test_fisher_is_taken_in_evaluation_mode() -> None:
    template = start(ewc())
    dropouts = [module for module in template.model.modules() if isinstance(module, nn.Dropout)]
    assert dropouts
    for dropout in dropouts:
        dropout.p = 0.5
    train(template, [0])
    importance = template.strategies[0].curvature
    assert close(importance, naive_fisher(template, 16))
    assert not close(importance, naive_fisher(template, 16, training=True))
    assert all(module.training for module in template.model.modules())


def test_fisher_is_of_the_objective_alone() -> None:
    """Neither the distillation of another strategy nor the penalty itself is in it."""
    template = start(ewc({"name": "model-mixup"}, weight=1e4))
    train(template, [0])
    first = [value.clone() for value in template.strategies[0].curvature]
    train(template, [1])
    pairs = zip(template.strategies[0].curvature, first, strict=True)
    assert close([both - one for both, one in pairs], naive_fisher(template, 16))


def test_fisher_changes_neither_weights_nor_gradients() -> None:
    template = start(ewc())
    train(template, [0])
    before = state_of(template.model)
    gradients = [p.grad.clone() for p in template.model.parameters() if p.grad is not None]
    template.strategies[0].after_training_exp(template)
    assert not differing(before, state_of(template.model))
    after = [p.grad for p in template.model.parameters() if p.grad is not None]
    assert all(torch.equal(one, other) for one, other in zip(gradients, after, strict=True))


def test_separate_holds_to_the_end_of_every_task() -> None:
    """A = Σ F^i, B = Σ F^i (θ − θ^{*i}) and c = Σ_k F_k^i (θ_k − θ_k^{*i})², θ the latest end."""
    template = start(ewc())
    names = [name for name, p in template.model.named_parameters() if p.requires_grad]
    assert any(name.startswith("encoder.") for name in names)
    assert any(name.startswith("decoder.") for name in names)
    fishers, ends = [], []
    for task in range(3):
        (end,) = train(template, [task])
        fishers.append(naive_fisher(template, 16))
        ends.append([end[name] for name in names])
        penalty = template.strategies[0]
        assert all(torch.equal(a, e) for a, e in zip(penalty.anchor, ends[-1], strict=True))
        curvature, slope, constant = [], [], 0.0
        for place, now in enumerate(ends[-1]):
            moved = [now.double() - end[place] for end in ends]
            parts = [fisher[place] for fisher in fishers]
            curvature.append(torch.stack(parts).sum(0))
            slope.append((torch.stack(parts) * torch.stack(moved)).sum(0))
            constant += float((torch.stack(parts) * torch.stack(moved) ** 2).sum())
        assert close(penalty.curvature, curvature)
        assert close(penalty.slope, slope)
        assert float(penalty.constant) == pytest.approx(constant, rel=1e-3)


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_online_is_one_decayed_term(decay: float) -> None:
    """F ← γ F + F_new, held to the end of the last task."""
    template = start(ewc(mode="online", decay=decay))
    expected = [torch.zeros(())] * len(template.strategies[0].parameters())
    for task in range(3):
        (end,) = train(template, [task])
        new = naive_fisher(template, 16)
        expected = [decay * old + one for old, one in zip(expected, new, strict=True)]
        penalty = template.strategies[0]
        assert close(penalty.curvature, expected)
        assert not any(value.any() for value in penalty.slope)
        names = [name for name, p in template.model.named_parameters() if p.requires_grad]
        assert all(torch.equal(a, end[n]) for a, n in zip(penalty.anchor, names, strict=True))


def test_online_and_separate_part_in_the_third_task() -> None:
    separate, online = train(start(ewc())), train(start(ewc(mode="online")))
    assert not differing(separate[1], online[1])
    assert differing(separate[2], online[2])


def test_objective_without_per_image_loss_is_refused() -> None:
    method = recipe({"name": BROKEN + "Sound"}, [{"name": "ewc"}])
    with pytest.raises(SpecError, match="'ewc' needs an objective with 'per_image_loss'"):
        start(tiny_spec(method))


def test_objective_with_a_state_in_its_loss_is_refused() -> None:
    """DINO moves its centre whenever its loss is computed."""
    method = recipe({"name": "dino"}, [{"name": "ewc", "estimate": "batch"}])
    with pytest.raises(SpecError, match="'ewc' needs an objective with 'stateless_loss'"):
        start(tiny_spec(method))


@pytest.mark.parametrize(("images", "batches"), [(2000, 2), (15, 1), (3, 1)])
def test_fisher_of_batches(images: int, batches: int) -> None:
    """Squares of the gradients of whole batches, averaged over batches, after the second task."""
    objective = {"name": "barlow-twins", "hidden_dim": 12, "output_dim": 6}
    parts = [{"name": "ewc", "estimate": "batch", "images": images, "weight": 1e3}]
    template = start(tiny_spec(recipe(objective, parts)))
    train(template, [0])
    first = [value.clone() for value in template.strategies[0].curvature]
    train(template, [1])
    model = copy.deepcopy(template.model).eval()
    held = [p for p in model.parameters() if p.requires_grad]
    squares = [torch.zeros_like(p, dtype=torch.float64) for p in held]
    order = torch.randperm(16, generator=torch_generator("cpu", 0, "fisher images", 1))
    for number in range(batches):
        views = template.views_of([(1, order[8 * number : 8 * number + 8])], f"fisher {number}")
        model.zero_grad()
        model(views, torch_generator("cpu", 0, "fisher", 1, number)).loss.backward()
        for total, p in zip(squares, held, strict=True):
            assert p.grad is not None
            total += p.grad.double() ** 2 / batches
    mean = torch.cat([total.flatten() for total in squares]).mean()
    expected = [one + total / mean for one, total in zip(first, squares, strict=True)]
    assert close(template.strategies[0].curvature, expected)
    assert not close(first, expected)
