"""PFR and CaSSLe against transcriptions, seen at every step of training."""

import copy
import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import torch
from helpers.two_views import TwoViews
from torch import Tensor, nn

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.models.encoder import keep_in_autocast_dtype
from rscl_bench.resolve import resolve_run
from rscl_bench.strategies.cassle import CaSSLe
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import State, differing, recipe, state_of

NAMES = ("pfr", "cassle")
HIDDEN = {"pfr": 12, "cassle": 2048}


def cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    dot = sum((a * b for a, b in zip(one, other, strict=True)), torch.zeros(()))
    norms = [sum((a * a for a in side), torch.zeros(())) for side in (one, other)]
    return dot / torch.sqrt(norms[0] * norms[1])


def projected(features: Tensor, head: nn.Sequential) -> Tensor:
    """Return Linear, batch normalisation by the batch itself, ReLU, Linear, written out."""
    first, norm, _, last = (dict(layer.named_parameters()) for layer in head)
    hidden = features @ first["weight"].T + first["bias"]
    mean = hidden.sum(dim=0) / len(hidden)
    variance = ((hidden - mean) ** 2).sum(dim=0) / len(hidden)
    scaled = norm["weight"] * (hidden - mean) / torch.sqrt(variance + 1e-5) + norm["bias"]
    return torch.where(scaled > 0, scaled, 0.0) @ last["weight"].T + last["bias"]


def slow_loss(name: str, student: Tensor, teacher: Tensor, head: nn.Sequential) -> Tensor:
    """Return the distillation of one view, image by image."""
    total = torch.zeros(())
    for one, other in zip(projected(student, head), teacher, strict=True):
        if name == "pfr":
            total = total - cosine(list(one), list(other)) / len(teacher)
        else:
            total = total + ((one - other) ** 2).sum() / teacher.numel()
    return total


def previous_of(trainer: Any) -> Any:
    """Return the encoder of the last task that a trainer keeps, None in the first."""
    if isinstance(trainer, CaSSLe):
        return None if trainer.past is None else trainer.past.encoder
    return trainer.previous


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Keeps the encoder at the end of every task, and compares each step with the slow loss."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.ended: nn.Module | None = None
        self.steps: list[dict[str, Any]] = []
        self.heads: list[tuple[nn.Module, State, State]] = []

    def before_training_exp(self, trainer: Any, **_: Any) -> None:
        self.start = state_of(trainer.strategies[0].head)

    def after_training_exp(self, trainer: Any, **_: Any) -> None:
        head = trainer.strategies[0].head
        self.ended = copy.deepcopy(trainer.model.encoder).eval()
        self.heads.append((head, self.start, state_of(head)))

    def before_backward(self, trainer: Any, **_: Any) -> None:
        distillation, encoder = trainer.strategies[0], trainer.model.encoder
        optimiser, head = trainer.optimizer, distillation.head
        step: dict[str, Any] = {
            "task": trainer.task,
            "step": trainer.step,
            "added": (trainer.loss.squeeze() - trainer.mb_output.loss).detach(),
            "total": trainer.loss.detach().squeeze(),
            "objective": trainer.mb_output.loss.detach(),
            "optimised": [bool(optimiser.state.get(p)) for p in head.parameters()],
        }
        self.steps.append(step)
        if self.ended is None:
            return
        (view,), (encoded,) = trainer.views, trainer.mb_output.encoded
        with torch.no_grad():
            tokens = self.ended(view)
        step["tokens"] = tuple(tokens.shape), tuple(encoded.shape)
        student = encoded[:, 1:].sum(dim=1) / (encoded.shape[1] - 1)
        expected = slow_loss(self.name, student, tokens[:, 1:].sum(dim=1) / 4, head)
        weights = [*(p for p in encoder.parameters() if p.requires_grad), *head.parameters()]
        step |= {
            "expected": expected.detach(),
            "gradients": [
                torch.autograd.grad(v, weights, retain_graph=True, allow_unused=True)
                for v in (trainer.loss.squeeze() - trainer.mb_output.loss, expected)
            ],
            "previous": state_of(previous_of(distillation)),
            "teacher": state_of(self.ended),
            "training": any(m.training for m in previous_of(distillation).modules()),
            "trainable": any(p.requires_grad for p in previous_of(distillation).parameters()),
        }

    def after_backward(self, trainer: Any, **_: Any) -> None:
        previous = previous_of(trainer.strategies[0])
        if previous is not None:
            self.steps[-1]["teacher_gradients"] = [
                p.grad for p in previous.parameters() if p.grad is not None
            ]

    @property
    def distilled(self) -> list[dict[str, Any]]:
        return [step for step in self.steps if step["task"] > 0]


def watched(name: str, **parameters: Any) -> tuple[Watch, list[State]]:
    watch = Watch(name)
    method = recipe({"name": "mae"}, [{"name": name, **parameters}])
    return watch, train(start(tiny_spec(method), plugins=[watch]))


@pytest.mark.parametrize("weight", [1.0, 0.3])
@pytest.mark.parametrize("name", NAMES)
def test_loss_is_the_transcription(name: str, weight: float) -> None:
    watch, _ = watched(name, weight=weight)
    assert len(watch.distilled) == 8
    for step in watch.distilled:
        total = float(step["objective"]) + weight * float(step["expected"])
        assert float(step["total"]) == pytest.approx(total, rel=1e-5)
        assert abs(float(step["expected"])) > 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_the_transcriptions(name: str) -> None:
    """To student and projector, and to nothing else."""
    watch, _ = watched(name)
    for step in watch.distilled:
        added, expected = step["gradients"]
        for one, other in zip(added, expected, strict=True):
            assert (one is None) == (other is None)
            if one is not None:
                torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
        assert any(g is not None and g.abs().max() > 1e-4 for g in expected)
        assert step["teacher_gradients"] == []


@pytest.mark.parametrize("name", NAMES)
def test_teacher_is_the_encoder_of_the_last_tasks_end(name: str) -> None:
    watch, states = watched(name)
    for step in watch.distilled:
        ended = states[step["task"] - 1]
        expected = {
            part.removeprefix("encoder."): value
            for part, value in ended.items()
            if part.startswith("encoder.")
        }
        assert not differing(step["previous"], expected)
        assert not differing(step["previous"], step["teacher"])
        assert not step["training"]
        assert not step["trainable"]


@pytest.mark.parametrize("name", NAMES)
def test_teacher_sees_all_patches_and_the_student_a_quarter(name: str) -> None:
    shapes: list[tuple[int, ...]] = []
    grads: list[bool] = []
    given: list[Tensor] = []
    views: list[Tensor] = []

    def keep(_: nn.Module, inputs: tuple[Tensor, ...], result: Tensor) -> None:
        (images,) = inputs  # nothing is left out
        given.append(images)
        shapes.append(tuple(result.shape))
        grads.append(torch.is_grad_enabled() or result.requires_grad)

    class Hook(BaseSGDPlugin):  # type: ignore[misc]
        def before_training_exp(self, trainer: Any, **_: Any) -> None:
            if trainer.task == 1:
                previous_of(trainer.strategies[0]).register_forward_hook(keep)

        def before_backward(self, trainer: Any, **_: Any) -> None:
            if trainer.task == 1:
                views.extend(trainer.views)
                assert trainer.mb_output.encoded[0].shape == (8, 1 + 1, 24)

    method = recipe({"name": "mae"}, [{"name": name}])
    train(start(tiny_spec(method), plugins=[Hook()]), [0, 1])
    assert shapes == [(8, 1 + 4, 24)] * 4
    assert not any(grads)
    assert all(one is other for one, other in zip(given, views, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_shape_of_the_projector(name: str) -> None:
    strategy = start(tiny_spec(recipe({"name": "mae"}, [{"name": name}]))).strategies[0]
    assert isinstance(strategy.head, nn.Sequential)
    first, norm, relu, last = strategy.head
    assert isinstance(first, nn.Linear)
    assert (first.in_features, first.out_features) == (24, HIDDEN[name])
    assert isinstance(norm, nn.BatchNorm1d)
    assert norm.num_features == HIDDEN[name]
    assert isinstance(relu, nn.ReLU)
    assert isinstance(last, nn.Linear)
    assert (last.in_features, last.out_features) == (HIDDEN[name], 24)


def test_hidden_width_of_cassle_is_an_option() -> None:
    method = recipe({"name": "mae"}, [{"name": "cassle", "hidden_dim": 5}])
    head = start(tiny_spec(method)).strategies[0].head
    assert head is not None
    assert [tuple(p.shape) for p in head.parameters()] == [
        (5, 24),
        (5,),
        (5,),
        (5,),
        (24, 5),
        (24,),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_projector_persists_and_its_optimiser_starts_anew(name: str) -> None:
    watch, _ = watched(name)
    (untouched, *trained) = watch.heads
    assert not differing(untouched[1], untouched[2])
    for (before, _, ended), (after, began, later) in zip(watch.heads, trained, strict=False):
        assert after is before
        assert not differing(began, ended)
        assert set(differing(began, later)) == set(began), "weights and running statistics"
    for step in watch.distilled:
        assert step["optimised"] == [step["step"] > 0] * 6


def test_pfr_cassle_and_weights_differ() -> None:
    ends = [watched(name, weight=w)[1][1] for name in NAMES for w in (1.0, 0.3)]
    for number, one in enumerate(ends):
        for other in ends[:number]:
            assert differing(one, other)


@pytest.mark.parametrize("name", NAMES)
def test_projector_is_a_function_of_the_seed(name: str) -> None:
    method = recipe({"name": "mae"}, [{"name": name}])
    heads = [start(tiny_spec(method, seed=seed)).strategies[0].head for seed in (0, 0, 1)]
    first, again, other = (state_of(head) for head in heads if head is not None)
    assert not differing(first, again)
    assert {"0.weight", "3.weight"} <= set(differing(first, other))


@pytest.mark.parametrize("name", ["pfr", "cassle", "model-mixup"])
def test_distance_is_fp32_under_autocast(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[torch.dtype, torch.dtype, bool, bool]] = []
    template = start(tiny_spec(recipe({"name": "mae"}, [{"name": name}])))
    template.autocast = partial(torch.autocast, "cpu", torch.bfloat16)
    (strategy,) = template.strategies
    owner, method = (template.model, "distil") if name == "cassle" else (strategy, "distance")
    distance = getattr(owner, method)

    def spy(student: Any, teacher: Any) -> Tensor:
        one, other = (side[0] if name == "cassle" else side for side in (student, teacher))
        cast = torch.is_autocast_enabled("cpu")
        finite = math.isfinite(float(one.detach().sum()))
        seen.append((one.dtype, other.dtype, cast, finite))
        loss: Tensor = distance(student, teacher)
        return loss

    monkeypatch.setattr(owner, method, spy)
    train(template, [0, 1])
    assert seen == [(torch.float32, torch.float32, False, True)] * 4


@pytest.mark.parametrize("name", NAMES)
def test_two_views_are_averaged(name: str) -> None:
    found: list[tuple[float, float]] = []

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def before_backward(self, trainer: Any, **_: Any) -> None:
            if trainer.task == 0:
                return
            (distillation,) = trainer.strategies
            assert len(trainer.views) == 2
            losses = []
            with torch.no_grad():
                for view, encoded in zip(trainer.views, trainer.mb_output.encoded, strict=True):
                    teacher = previous_of(distillation)(view)[:, 1:].mean(dim=1)
                    student = encoded[:, 1:].mean(dim=1)
                    losses.append(float(slow_loss(name, student, teacher, distillation.head)))
            added = float((trainer.loss.squeeze() - trainer.mb_output.loss).detach())
            found.append((added, sum(losses) / 2))

    spec = tiny_spec(recipe({"name": "mae"}, [{"name": name}]), tasks=2)
    objective = TwoViews(start(spec).model.encoder)
    train(start(spec, objective=objective, plugins=[Look()]))
    assert len(found) == 4
    for added, expected in found:
        assert added == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("name", ["pfr", "cassle", "model-mixup"])
def test_teacher_that_is_kept_in_bf16_gives_the_same_bits(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trained() -> tuple[list[State], dict[str, Tensor]]:
        template = start(tiny_spec(recipe({"name": "mae"}, [{"name": name}])))
        template.autocast = partial(torch.autocast, "cpu", torch.bfloat16)
        states, before = train(template, [0, 1]), dict(template.strategies[0].state_dict())
        template.strategies[0].load_state_dict(before)
        return states + train(template, [2]), before

    kept, state = trained()
    layers = [value.dtype for key, value in state.items() if key.endswith("attn.qkv.weight")]
    assert layers == [torch.float32] * 2  # the copy of a task's end has not taught yet
    for module in ("distillation", "cassle"):
        monkeypatch.setattr(
            f"rscl_bench.strategies.{module}.keep_in_autocast_dtype", lambda *_: None
        )
    cast, _ = trained()
    for one, other in zip(kept, cast, strict=True):
        assert not differing(one, other)


def test_bf16_is_kept_where_autocast_is_on() -> None:
    encoder = start(tiny_spec()).model.encoder
    keep_in_autocast_dtype(encoder, "cpu")
    assert {p.dtype for p in encoder.parameters()} == {torch.float32}
    with torch.autocast("cpu", torch.bfloat16):
        keep_in_autocast_dtype(encoder, "cpu")
    halved = {name for name, p in encoder.named_parameters() if p.dtype == torch.bfloat16}
    assert {name.split(".")[-2] for name in halved} == {"qkv", "proj", "fc1", "fc2"}
    fresh = start(tiny_spec()).model.encoder
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(encoder(images), fresh(images))


@pytest.mark.parametrize("scenario", ["scene4", "rs4"])
def test_pfr_with_barlow_twins_has_the_authors_ratio(scenario: str) -> None:
    """The authors train on 0.1 L_BT + PFR; L_BT is unscaled here, whatever the protocol's λ."""
    spec = resolve_run(load_scenario(scenario), load_method("pfr-barlow-twins"))
    assert spec.method.strategies[0].parameters == {"weight": 10.0}
