"""Eq. 3 to 5 of CoSMAE, seen at every step of training."""

import math
from itertools import combinations
from typing import Any

import pytest
import torch
from lightly.loss import NTXentLoss
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.declarations import declarations, load_method, load_scenario
from rscl_bench.models.encoder import Encoder
from rscl_bench.resolve import resolve_run
from rscl_bench.strategies.model_mixup import ModelMixup, literal_eq4, mix_weights
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import State, differing, recipe, state_of


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Sees each step after the strategy added its loss, and after the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[dict[str, Any]] = []

    def before_backward(self, trainer: Any, **_: Any) -> None:
        (mixup,) = (s for s in trainer.strategies if isinstance(s, ModelMixup))
        teacher = mixup.mixed
        assert mixup.head is not None
        step: dict[str, Any] = {
            "task": trainer.task,
            "step": trainer.step,
            "total": trainer.loss.detach().clone().squeeze(),  # Avalanche starts from [0.]
            "objective": trainer.mb_output.loss.detach().clone(),
            "encoded": trainer.mb_output.encoded[0].detach().clone(),
            "view": trainer.views[0].clone(),
            "current": state_of(mixup.student),
            "head": mixup.head,
            "head_state": state_of(mixup.head),
        }
        if teacher is not None and mixup.previous is not None:
            step |= {
                "teacher": state_of(teacher),
                "previous": state_of(mixup.previous),
                "training": teacher.training or mixup.previous.training,
                "params": mixup.params,
            }
            with torch.no_grad():
                step["pooled"] = {
                    how: teacher.pool(teacher(trainer.views[0]), how) for how in ("patches", "cls")
                }
                step["projected"] = {
                    how: mixup.head(mixup.student.pool(step["encoded"], how))
                    for how in ("patches", "cls")
                }
        self.steps.append(step)

    def after_backward(self, trainer: Any, **_: Any) -> None:
        (mixup,) = (s for s in trainer.strategies if isinstance(s, ModelMixup))
        assert mixup.head is not None
        frozen = [m for m in (mixup.mixed, mixup.previous) if m is not None]
        self.steps[-1]["frozen_gradients"] = [
            p.grad for module in frozen for p in module.parameters() if p.grad is not None
        ]
        self.steps[-1]["frozen_trainable"] = any(
            p.requires_grad for module in frozen for p in module.parameters()
        )
        self.steps[-1]["head_gradients"] = [p.grad for p in mixup.head.parameters()]

    @property
    def distilled(self) -> list[dict[str, Any]]:
        return [step for step in self.steps if step["task"] > 0]


def watched(data_mixup: bool = False, **parameters: Any) -> tuple[Watch, list[State]]:
    watch = Watch()
    mixups: list[dict[str, Any]] = [{"name": "data-mixup"}] if data_mixup else []
    method = recipe({"name": "mae"}, [*mixups, {"name": "model-mixup", **parameters}])
    states = train(start(tiny_spec(method), plugins=[watch]))
    return watch, states


# Eq. 3


def test_teacher_is_the_mixture_at_every_step() -> None:
    watch, _ = watched()
    assert len(watch.distilled) == 8
    drawn = []
    for step in watch.distilled:
        (weight,) = step["params"].draw(1, 0, "model-mixup", step["task"], step["step"])
        drawn.append(weight)
        assert step["teacher"].keys() == step["current"].keys()
        for name, teacher in step["teacher"].items():
            previous, current = step["previous"][name], step["current"][name]
            assert torch.equal(teacher, torch.lerp(previous, current, weight)), name
            exact = weight * current.double() + (1 - weight) * previous.double()
            assert torch.allclose(teacher.double(), exact, atol=1e-6), name
    assert len(set(drawn)) == 8


def test_mixture_is_of_the_current_weights() -> None:
    watch, states = watched(constant=1.0)
    for step in watch.distilled:
        assert not differing(step["teacher"], step["current"])
    one, other = watch.distilled[1], watch.distilled[2]
    assert differing(one["teacher"], other["teacher"])
    assert len(states) == 3


def test_lambda_zero_is_the_old_encoder() -> None:
    watch, _ = watched(constant=0.0)
    for step in watch.distilled:
        assert not differing(step["teacher"], step["previous"])
        if step["step"] > 1:  # the warm-up's first step has rate 0
            assert differing(step["teacher"], step["current"])


class WithBuffer(torch.nn.BatchNorm1d):
    pass


def test_buffers_are_taken_unmixed() -> None:
    teacher, previous, current = (WithBuffer(3) for _ in range(3))
    current.running_mean = torch.tensor([1.0, 2.0, 3.0])
    torch.nn.init.constant_(current.weight, 3.0)
    mix_weights(teacher, previous, current, 0.25)  # type: ignore[arg-type]
    assert torch.equal(teacher.weight.detach(), torch.full((3,), 1.5))
    assert teacher.running_mean is not None
    assert torch.equal(teacher.running_mean, current.running_mean)


# Eq. 4 and 5


def cosine(one: Tensor, other: Tensor) -> float:
    a, b = one.double(), other.double()
    return float(a @ b / (a.norm() * b.norm()))


def naive_ntxent(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Each of the 2B vectors against the other 2B - 1, of which one is its positive."""
    vectors = [*student, *teacher]
    batch, total = len(student), 0.0
    for i, asking in enumerate(vectors):
        positive = (i + batch) % (2 * batch)
        denominator = sum(
            math.exp(cosine(asking, other) / temperature)
            for k, other in enumerate(vectors)
            if k != i
        )
        numerator = math.exp(cosine(asking, vectors[positive]) / temperature)
        total -= math.log(numerator / denominator)
    return total / (2 * batch)


def naive_eq4(student: Tensor, teacher: Tensor, temperature: float) -> float:
    """Eq. 4 term by term: 1/(2B) times two logarithms for every image, without its positive."""
    batch, total = len(student), 0.0
    for i in range(batch):
        positive = math.exp(cosine(student[i], teacher[i]) / temperature)
        of_student = of_teacher = 0.0
        for q in range(batch):
            if q != i:
                of_student += math.exp(cosine(student[i], teacher[q]) / temperature)
                of_teacher += math.exp(cosine(teacher[i], student[q]) / temperature)
        total += -math.log(positive / of_student) - math.log(positive / of_teacher)
    return total / (2 * batch)


NAIVE = {"ntxent": naive_ntxent, "eq4": naive_eq4}


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_losses_equal_naive_loops(temperature: float) -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(5, 7, generator=generator).double() for _ in range(2))
    ntxent = float(NTXentLoss(temperature)(student, teacher))
    assert ntxent == pytest.approx(naive_ntxent(student, teacher, temperature), rel=1e-9)
    eq4 = float(literal_eq4(student, teacher, temperature))
    assert eq4 == pytest.approx(naive_eq4(student, teacher, temperature), rel=1e-9)
    assert abs(eq4 - ntxent) > 0.05


def test_eq4_compares_in_both_directions() -> None:
    """By hand at τ = 1: every teacher feature is the first student feature's direction."""
    student, teacher = torch.eye(3), torch.eye(3)[[0, 0, 0]]
    students = (math.log(2 * math.e) + math.log(2) + math.log(2)) / 3
    teachers = (math.log(2) + 2 * math.log(math.e + 1)) / 3
    expected = (students + teachers) / 2 - 1 / 3
    assert abs(expected - (students - 1 / 3)) > 0.03  # the students' side alone is another loss
    assert float(literal_eq4(student, teacher, 1.0)) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("data_mixup", [False, True])
@pytest.mark.parametrize("loss", ["ntxent", "eq4"])
@pytest.mark.parametrize("feature", ["patches", "cls"])
def test_beta_times_the_loss_is_added(loss: str, feature: str, data_mixup: bool) -> None:
    watch, _ = watched(data_mixup=data_mixup, loss=loss, feature=feature, beta=0.3, temperature=0.2)
    for step in watch.distilled:
        expected = NAIVE[loss](step["projected"][feature], step["pooled"][feature], 0.2)
        total = float(step["objective"]) + 0.3 * expected
        assert float(step["total"]) == pytest.approx(total, rel=1e-5)


def test_paper_values_by_default() -> None:
    watch, _ = watched()
    params = watch.distilled[0]["params"]
    assert (params.beta, params.temperature, params.alpha) == (0.1, 0.5, 0.4)
    assert (params.loss, params.feature, params.hidden_dim) == ("ntxent", "patches", 128)
    assert params.constant is None
    assert params.keep_projector
    shapes = [tuple(value.shape) for value in watch.steps[0]["head_state"].values()]
    assert shapes == [(128, 24), (128,), (24, 128), (24,)]


def test_class_token_and_patches_train_apart() -> None:
    _, patches = watched(feature="patches")
    _, cls = watched(feature="cls")
    assert not differing(patches[0], cls[0])
    assert differing(patches[1], cls[1])


# Student and teacher


def test_teacher_sees_the_whole_mixed_view(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[int, Tensor, Tensor, bool]] = []

    class Hooked(ModelMixup):
        def teacher(self, trainer: Any) -> Encoder | None:
            hooked = self.mixed is not None
            teacher = super().teacher(trainer)
            if teacher is not None and not hooked:
                teacher.register_forward_hook(keep)
            return teacher

    def keep(_module: Encoder, given: tuple[Tensor, ...], result: Tensor) -> None:
        calls.append((len(given), given[0], result, torch.is_grad_enabled()))

    views, encoded = [], []

    class Views(BaseSGDPlugin):  # type: ignore[misc]
        def before_backward(self, trainer: Any, **_: Any) -> None:
            if trainer.task == 1:
                views.append(trainer.views[0])
                encoded.append(trainer.mb_output.encoded[0])

    monkeypatch.setattr("rscl_bench.strategies.model_mixup.ModelMixup", Hooked)
    train(start(tiny_spec("cosmae"), plugins=[Views()]), [0, 1])
    assert len(calls) == len(views) == 4
    for (arguments, given, result, grad), view, student in zip(calls, views, encoded, strict=True):
        assert arguments == 1  # nothing is left out
        assert given is view
        assert result.shape == (8, 1 + 4, 24)
        assert student.shape == (8, 1 + 1, 24)
        assert not grad
        assert not result.requires_grad

    plain: list[Tensor] = []

    class Plain(BaseSGDPlugin):  # type: ignore[misc]
        def before_backward(self, trainer: Any, **_: Any) -> None:
            if trainer.task == 1:
                plain.append(trainer.views[0])

    train(start(tiny_spec(), plugins=[Plain()]), [0, 1])
    for mixed, unmixed in zip(views, plain, strict=True):
        assert not torch.equal(mixed, unmixed)


def test_teacher_is_frozen() -> None:
    watch, _ = watched()
    for step in watch.distilled:
        assert not step["training"]
        assert step["frozen_gradients"] == []
        assert not step["frozen_trainable"]


def test_previous_is_constant_within_a_task() -> None:
    watch, _ = watched()
    for task in (1, 2):
        held = [step["previous"] for step in watch.steps if step["task"] == task]
        for later in held[1:]:
            assert not differing(held[0], later)
    first, second = (
        next(step["previous"] for step in watch.steps if step["task"] == task) for task in (1, 2)
    )
    assert differing(first, second)


def test_teacher_is_outside_model_and_optimiser() -> None:
    template = start(tiny_spec("cosmae"))
    names = set(state_of(template.model))
    train(template)
    (_, mixup) = template.strategies
    assert isinstance(mixup, ModelMixup)
    assert mixup.mixed is not None
    assert mixup.previous is not None
    assert mixup.head is not None
    assert set(state_of(template.model)) == names
    optimised = {id(p) for group in template.optimizer.param_groups for p in group["params"]}
    frozen = {id(p) for m in (mixup.mixed, mixup.previous) for p in m.parameters()}
    assert not optimised & frozen
    trained = {id(p) for p in template.model.parameters() if p.requires_grad}
    assert optimised == trained | {id(p) for p in mixup.head.parameters()}


def test_distillation_trains_encoder_and_projector() -> None:
    watch, _ = watched()
    for step in watch.distilled:
        for gradient in step["head_gradients"]:
            assert gradient is not None
            assert gradient.any()
    heads = [step["head_state"] for step in watch.distilled]
    assert differing(heads[1], heads[-1])


def test_beta_zero_is_no_distillation_to_the_last_bit() -> None:
    _, without = watched(beta=0.0)
    plain = train(start(tiny_spec()))
    for one, other in zip(without, plain, strict=True):
        assert not differing(one, other)
    _, mixed = watched(beta=0.0, data_mixup=True)
    alone = train(start(tiny_spec(recipe({"name": "mae"}, [{"name": "data-mixup"}]))))
    for one, other in zip(mixed, alone, strict=True):
        assert not differing(one, other)


@pytest.mark.parametrize("keep", [True, False])
def test_projector_persists_or_starts_anew(keep: bool) -> None:
    watch, _ = watched(keep_projector=keep)
    ends = {step["task"]: step for step in watch.steps}
    starts = {step["task"]: step for step in reversed(watch.steps)}
    assert (starts[2]["head"] is ends[1]["head"]) == keep
    last = watch.steps[-1]
    assert last["head_gradients"][0] is not None  # a new one is trained too
    assert differing(starts[2]["head_state"], ends[2]["head_state"])
    if keep:
        return
    assert differing(starts[1]["head_state"], starts[2]["head_state"])


def test_projector_is_a_function_of_the_seed() -> None:
    heads = []
    for seed in (0, 0, 1):
        head = start(tiny_spec("cosmae", seed=seed)).strategies[1].head
        assert head is not None
        heads.append(state_of(head))
    assert not differing(heads[0], heads[1])
    assert differing(heads[0], heads[2])


def test_ablations_differ() -> None:
    """The paper's variants, one flag each, all train another encoder."""
    variants: list[dict[str, Any]] = [
        {},
        {"alpha": 1.0},
        {"constant": 0.5},
        {"constant": 0.0},
        {"beta": 0.01},
        {"beta": 1.0},
        {"loss": "eq4"},
    ]
    ends = [watched(**variant)[1][1] for variant in variants]
    for number, one in enumerate(ends):
        for other in ends[:number]:
            assert differing(one, other)


# Recipes


LESS: dict[str, str] = {
    "cosmae-data-mixup": "strategies.model-mixup.beta=0.0",
    "cosmae-model-mixup": "strategies.data-mixup.constant=1.0",
}
CHANGED: dict[str, tuple[str, str, float]] = {
    "cosmae-uniform-data-mixup": ("data-mixup", "alpha", 1.0),
    "cosmae-uniform-model-mixup": ("model-mixup", "alpha", 1.0),
    "cosmae-half-model-mixup": ("model-mixup", "constant", 0.5),
    "cosmae-old-teacher": ("model-mixup", "constant", 0.0),
}


def resolved(name: str) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Return all values of a recipe's objective, and of its strategies by name."""
    method = resolve_run(load_scenario("rs4"), load_method(name)).method
    return method.objective.model_dump(), {s.name: s.parameters for s in method.strategies}


@pytest.mark.parametrize("name", CHANGED)
def test_ablation_recipe_differs_in_one_parameter(name: str) -> None:
    objective, strategies = resolved("cosmae")
    strategy, parameter, value = CHANGED[name]
    assert strategies[strategy][parameter] != value
    strategies[strategy][parameter] = value
    assert resolved(name) == (objective, strategies)


@pytest.mark.parametrize("name", LESS)
def test_ablation_recipe_lacks_one_strategy(name: str) -> None:
    objective, strategies = resolved("cosmae")
    kept = {"cosmae-data-mixup": "data-mixup", "cosmae-model-mixup": "model-mixup"}[name]
    assert resolved(name) == (objective, {kept: strategies[kept]})


def test_every_ablation_recipe_is_its_setting_and_trains_another_encoder() -> None:
    settings = {name: f"strategies.{s}.{p}={value}" for name, (s, p, value) in CHANGED.items()}
    settings |= LESS
    assert {"cosmae", *settings} == {n for n in declarations("methods") if n.startswith("cosmae")}
    ends = {name: train(start(tiny_spec(name)), [0, 1])[1] for name in ("finetune", "cosmae")}
    for name, setting in settings.items():
        ends[name] = train(start(tiny_spec(name)), [0, 1])[1]
        (same,) = train(start(tiny_spec("cosmae", assignments=[setting])), [0, 1])[1:]
        assert not differing(ends[name], same), name
    for one, other in combinations(ends, 2):
        changed = differing(ends[one], ends[other])
        assert any(part.startswith("encoder.") for part in changed), (one, other)
