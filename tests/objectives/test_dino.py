"""DINO, iBOT, DINOv2 and DINOv3 against slow transcriptions of their formulas."""

import copy
import math
import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers.backbones import RESNET, SWIN
from helpers.joint_embeddings import train_on_noise
from lightly.loss import DINOLoss
from torch import Tensor, nn

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.engine.build import build_objective
from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.dino import DINO
from rscl_bench.objectives.dinov2 import DINOv2
from rscl_bench.objectives.dinov3 import DINOv3, gram_loss
from rscl_bench.objectives.ibot import IBOT
from rscl_bench.objectives.self_distillation import (
    DINOHead,
    Prototypes,
    TeacherTargets,
    across_views,
    clip_each,
)
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import RunSpec
from rscl_bench.testing import check_objective, start, tiny_spec, train
from rscl_bench.testing.tiny import State, differing, recipe, state_of

SMALL: dict[str, Any] = {"hidden_dim": 16, "bottleneck_dim": 8, "prototypes": 12, "local_views": 2}
FAMILY = ("dino", "ibot", "dinov2", "dinov3")


def spec_of(name: str, *strategies: dict[str, Any], **parameters: Any) -> RunSpec:
    return tiny_spec(recipe({"name": name, **SMALL, **parameters}, strategies))


def random_views(sizes: Sequence[int], batch: int = 6) -> list[Tensor]:
    generator = torch_generator("cpu", 0, "views")
    return [torch.randn(batch, 3, size, size, generator=generator) for size in sizes]


# Head, targets and cross-entropy.


def test_head_equals_lightlys() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, on lightly's weight norm
        from lightly.models.modules.heads import DINOProjectionHead

        theirs = DINOProjectionHead(10, 16, 8, 12)
    mine = DINOHead(10, 16, 8, 12)
    linear = [layer for layer in theirs.layers if isinstance(layer, nn.Linear)]
    own = [layer for layer in mine.layers if isinstance(layer, nn.Linear)]
    with torch.no_grad():
        for target, source in zip(own, linear, strict=True):
            target.weight.copy_(source.weight)
            target.bias.copy_(source.bias)
        mine.prototypes.weight.copy_(theirs.last_layer.weight_v)
    features = torch.randn(5, 10)
    assert torch.allclose(mine(features), theirs(features), atol=1e-6)


def test_logits_are_cosines() -> None:
    logits = DINOHead(10, 16, 8, 12)(100 * torch.randn(50, 10))
    assert logits.abs().max() <= 1 + 1e-6
    assert logits.abs().max() > 0.5


def slow_cross_entropy(target: Tensor, logits: Tensor, temperature: float) -> float:
    """Return −Σ p log q of one sample, in Python floats."""
    scaled = [value / temperature for value in logits.tolist()]
    total = sum(math.exp(value) for value in scaled)
    pairs = zip(target.tolist(), scaled, strict=True)
    return -math.fsum(p * math.log(math.exp(value) / total) for p, value in pairs)


def weight_normed(norm: str, width: int, count: int) -> nn.Module:
    """Return the last layer of the authors' heads: with weight norm, or plain (DINOv3)."""
    layer = nn.Linear(width, count, bias=False)
    if norm == "none":
        nn.init.trunc_normal_(layer.weight, std=0.02)
        return layer
    normed = nn.utils.parametrizations.weight_norm(layer)
    length = normed.parametrizations.weight.original0
    nn.init.ones_(length)
    return normed.requires_grad_(True) if norm == "trained" else _fixed(normed, length)


def _fixed(layer: nn.Module, length: nn.Parameter) -> nn.Module:
    length.requires_grad_(False)
    return layer


@pytest.mark.parametrize("norm", ["fixed", "trained", "none"])
def test_prototypes_are_the_authors_last_layer(norm: Any) -> None:
    """Over an optimiser's steps, for which initial lengths and gradients count."""
    own, theirs = Prototypes(8, 12, norm), weight_normed(norm, 8, 12)
    directions = [p for p in theirs.parameters() if p.shape == (12, 8)]
    with torch.no_grad():
        directions[0].copy_(own.weight)
    features = nn.functional.normalize(torch.randn(5, 8), dim=1)
    optimisers = [
        torch.optim.AdamW([p for p in layer.parameters() if p.requires_grad], lr=0.01)
        for layer in (own, theirs)
    ]
    for _ in range(4):
        torch.testing.assert_close(own(features), theirs(features), atol=1e-6, rtol=1e-5)
        for layer, optimiser in zip((own, theirs), optimisers, strict=True):
            optimiser.zero_grad()
            layer(features).exp().sum().backward()
            optimiser.step()
    counts = [sum(p.numel() for p in m.parameters() if p.requires_grad) for m in (own, theirs)]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("norm", "expected"), [("fixed", 3**-0.5), ("trained", 3**-0.5), ("none", 0.02 * 128**0.5)]
)
def test_prototypes_start_with_the_authors_lengths(norm: Any, expected: float) -> None:
    """``nn.Linear`` draws uniformly in ±1/√width: lengths are 0.577, not 0.02 √width."""
    lengths = Prototypes(128, 500, norm).weight.detach().norm(dim=1)
    assert float(lengths.mean()) == pytest.approx(expected, rel=0.02)


def test_heads_of_the_family_have_their_papers_prototypes() -> None:
    norms = {name: start(spec_of(name)).model.projector.prototypes.norm for name in FAMILY}
    assert norms == {"dino": "fixed", "ibot": "fixed", "dinov2": "trained", "dinov3": "none"}


def test_mask_token_starts_at_zero() -> None:
    for name in ("ibot", "dinov2", "dinov3"):
        assert not start(spec_of(name)).model.token.any()


def test_loss_over_views_by_loops_and_by_lightly() -> None:
    torch.manual_seed(0)
    taught, own = torch.randn(2, 5, 7), torch.randn(4, 5, 7)
    reference = DINOLoss(7, teacher_temp=0.05, student_temp=0.2, warmup_teacher_temp_epochs=1)
    reference.center += torch.randn(7)
    targets = TeacherTargets(7, 0.9, "mean")
    targets.centre.copy_(reference.center.flatten())
    mine = across_views([targets(one, 0.05) for one in taught], list(own), 0.2)
    terms = []
    for first in range(2):
        for second in range(4):
            for image in range(5):
                centred = ((taught[first, image] - targets.centre) / 0.05).double()
                target = centred.softmax(dim=0)
                if first != second:
                    terms.append(slow_cross_entropy(target, own[second, image], 0.2))
    assert float(mine) == pytest.approx(sum(terms) / len(terms), rel=1e-5)
    assert torch.allclose(mine, reference(list(taught), list(own), teacher_temp=0.05), rtol=1e-5)


def test_centre_is_a_moving_average() -> None:
    targets, expected = TeacherTargets(3, 0.9, "mean"), torch.zeros(3)
    for step in range(4):
        logits = torch.randn(5, 3, generator=torch_generator("cpu", 0, step))
        targets.update_centre(logits)
        expected = 0.9 * expected + 0.1 * logits.mean(dim=0)
    assert torch.allclose(targets.centre, expected, atol=1e-6)
    targets.update_centre(torch.zeros(0, 3))
    assert torch.allclose(targets.centre, expected, atol=1e-6)


def test_sinkhorn_by_loops() -> None:
    """Three iterations normalise prototypes, then samples; every sample then sums to 1."""
    logits = torch.randn(6, 4, dtype=torch.float64)
    table = (logits / 0.5).exp().T
    table = table / table.sum()
    for _ in range(3):
        table = table / table.sum(dim=1, keepdim=True) / 4
        table = table / table.sum(dim=0, keepdim=True) / 6
    assigned = TeacherTargets(4, 0.9, "sinkhorn")(logits.float(), 0.5)
    assert torch.allclose(assigned.double(), (table * 6).T, atol=1e-5)
    assert torch.allclose(assigned.sum(dim=1), torch.ones(6), atol=1e-5)


# Training.


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Records the weights of student and teacher at every step."""

    def __init__(self, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.teacher: dict[str, Tensor] = {}
        self.temperatures: list[float] = []
        self.moved: list[bool] = []

    def before_forward(self, trainer: Any, **_: Any) -> None:
        model = trainer.model
        if not self.teacher:
            self.teacher = {n: p.detach().clone() for n, p in model.encoder.named_parameters()}
        self.temperatures.append(model.temperature)
        self.before = state_of(model.projector.prototypes)

    def after_update(self, trainer: Any, **_: Any) -> None:
        model, progress = trainer.model, trainer.step / trainer.steps
        momentum = 1 - (1 - self.momentum) * (math.cos(math.pi * progress) + 1) / 2
        for name, p in model.encoder.named_parameters():
            old = self.teacher[name]
            self.teacher[name] = momentum * old + (1 - momentum) * p.detach()
        moved = differing(self.before, state_of(model.projector.prototypes))
        assert len(moved) in (0, len(self.before))
        self.moved.append(bool(moved))
        for name, p in model.teacher.named_parameters():
            assert torch.allclose(p, self.teacher[name], atol=1e-6), name


@pytest.mark.parametrize("name", FAMILY)
def test_teacher_temperature_and_prototypes_over_two_tasks(name: str) -> None:
    watch = Watch(0.9)
    train(start(spec_of(name, momentum=0.9, warmup=0.5), plugins=[watch]), [0, 1])
    assert watch.moved == [False, False, True, True] * 2  # two steps an epoch, two epochs a task
    assert watch.temperatures == pytest.approx([0.04, 0.055, 0.07, 0.07] * 2)


def test_clip_is_per_parameter() -> None:
    parameters = [nn.Parameter(torch.zeros(3)) for _ in range(3)]
    gradients = [torch.tensor([3.0, 4.0, 0.0]), torch.tensor([0.3, 0.4, 0.0])]
    for parameter, gradient in zip(parameters, gradients, strict=False):
        parameter.grad = gradient.clone()
    clip_each(parameters, 1.0)
    first, second, third = (parameter.grad for parameter in parameters)
    assert first is not None
    assert second is not None
    assert torch.allclose(first, gradients[0] / 5, atol=1e-5)
    assert torch.equal(second, gradients[1])
    assert third is None


def test_gradients_are_clipped_in_training() -> None:
    norms: list[float] = []

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def after_update(self, trainer: Any, **_: Any) -> None:
            found = [p.grad.norm() for p in trainer.model.parameters() if p.grad is not None]
            norms.append(float(torch.stack(found).max()))

    train(start(spec_of("dino", clip=1e-3), plugins=[Look()]), [0])
    assert max(norms) <= 1.001e-3
    assert max(norms) > 0.9e-3


@pytest.mark.parametrize("name", ["dinov2", "dinov3"])
def test_total_norms_of_encoder_and_head_are_clipped(name: str) -> None:
    """The encoder counts with its mask token, as in the authors' backbone; the head on its own."""
    objective: Any = start(spec_of(name, clip=1e-3)).model
    objective(random_views((16, 16, 8, 8)), torch_generator("cpu", 0, "x")).loss.backward()
    groups = [
        [*objective.encoder.parameters(), objective.token],
        [*objective.projector.parameters()],
    ]
    groups = [[p for p in group if p.grad is not None] for group in groups]
    before = [[p.grad.clone() for p in group] for group in groups]
    objective.clip_gradients()
    for group, gradients in zip(groups, before, strict=True):
        total = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
        assert total > 1e-3
        for parameter, gradient in zip(group, gradients, strict=True):
            expected = gradient * (1e-3 / total)
            torch.testing.assert_close(parameter.grad, expected, atol=1e-9, rtol=1e-3)


# Inputs of student and teacher.


class Spy(nn.Module):
    """Records the inputs of an encoder."""

    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.seen: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(images)
        encoded: Tensor = self.encoder(images)
        return encoded

    def __getattr__(self, name: str) -> Any:
        return super().__getattr__(name) if name == "encoder" else getattr(self.encoder, name)


@pytest.mark.parametrize("name", FAMILY)
def test_teacher_sees_the_global_views_whole(name: str) -> None:
    objective: Any = start(spec_of(name)).model
    spy = Spy(objective.teacher)
    objective.teacher = spy
    views = random_views((16, 16, 8, 8))
    output = objective(views, torch_generator("cpu", 0, "objective"))
    (seen,) = spy.seen
    assert torch.equal(seen, torch.cat(views[:2]))
    assert [one.shape[1] for one in output.encoded] == [5, 5, 2, 2]
    for view, encoded in zip(views[2:], output.encoded[2:], strict=True):
        assert torch.allclose(encoded, objective.encoder(view), atol=1e-5)


@pytest.mark.parametrize("name", FAMILY)
def test_no_gradient_reaches_a_teacher(name: str) -> None:
    template = start(spec_of(name))
    train(template, [0, 1])
    for part in ("teacher", "teacher_projector", "gram_teacher"):
        module = getattr(template.model, part, None)
        for p in module.parameters() if module is not None else ():
            assert not p.requires_grad
            assert p.grad is None


def test_views_are_the_papers() -> None:
    model: Any = start(tiny_spec(recipe({"name": "dino", "prototypes": 8}))).model
    first, second, *rest = model.views
    assert (first.min_scale, first.max_scale, first.blur, first.solarise) == (0.4, 1.0, 1.0, 0.0)
    assert (second.blur, second.solarise) == (0.1, 0.2)
    assert len(rest) == 8
    assert (rest[0].min_scale, rest[0].max_scale, rest[0].blur) == (0.05, 0.4, 0.5)
    assert rest[0].size == 96 / 224
    assert all(view.jitter == 0.8 and view.grey == 0.2 for view in model.views)


# Hidden locations.


def location_loss_by_loops(
    objective: IBOT, masked: Tensor, seen: Tensor, hidden: Tensor, temperature: float
) -> tuple[float, Tensor]:
    """Return iBOT's loss at hidden locations, image by image, and the teacher's logits."""
    student, teacher = objective.projector, objective.teacher_projector
    total, logits = 0.0, []
    for image in range(len(masked)):
        terms = []
        for number, is_hidden in enumerate(hidden[image].flatten().tolist()):
            taught = teacher(seen[image, 1 + number])
            logits.append(taught)
            if is_hidden:
                target = ((taught - objective.place_targets.centre) / temperature).double()
                own = student(masked[image, 1 + number])
                terms.append(slow_cross_entropy(target.softmax(dim=0), own, 0.1))
        total += sum(terms) / max(len(terms), 1)
    return total / len(masked), torch.stack(logits)


@pytest.mark.parametrize("name", ["ibot", "dinov2"])
def test_location_loss_by_loops(name: str) -> None:
    objective: Any = start(spec_of(name)).model
    objective.place_targets.centre.normal_(generator=torch_generator("cpu", 0, "centre"))
    centre = objective.place_targets.centre.clone()
    generator = torch_generator("cpu", 1, "tokens")
    masked, seen = torch.randn(2, 6, 5, 24, generator=generator)
    hidden = torch.zeros(6, 2, 2, dtype=torch.bool)
    hidden[1, 0, 0] = hidden[2, :, 1] = hidden[4] = True
    expected, logits = location_loss_by_loops(
        objective, masked, seen, hidden, objective.temperature
    )
    assert float(objective.location_loss(masked, seen, hidden).detach()) == pytest.approx(
        expected, rel=1e-4
    )
    followed = logits if name == "ibot" else logits[hidden.flatten()]
    moved = 0.9 * centre + 0.1 * followed.mean(dim=0)
    assert torch.allclose(objective.place_targets.centre, moved, atol=1e-5)


def test_location_loss_is_zero_if_nothing_is_hidden() -> None:
    for name in ("ibot", "dinov2", "dinov3"):
        objective: Any = start(spec_of(name)).model
        tokens = torch.randn(4, 5, 24)
        none = torch.zeros(4, 2, 2, dtype=torch.bool)
        assert float(objective.location_loss(tokens, tokens, none).detach()) == 0
        assert torch.isfinite(objective.place_targets.centre).all()


def test_ibot_hides_in_about_half_of_the_views() -> None:
    objective: Any = start(spec_of("ibot")).model
    shares = objective.draw(4000, 14, torch_generator("cpu", 0, "masks")).float().mean(dim=(1, 2))
    some = shares[shares > 0]
    assert len(some) / 4000 == pytest.approx(0.5, abs=0.03)
    assert some.min() >= 0.1 - 0.003
    assert some.max() <= 0.5 + 0.003
    assert some.mean() == pytest.approx(0.3, abs=0.01)


def test_dinov2_hides_in_half_of_the_views_in_equal_steps() -> None:
    objective: Any = start(spec_of("dinov2")).model
    masks = objective.draw(40, 14, torch_generator("cpu", 0, "masks"))
    shares = masks.float().mean(dim=(1, 2))
    some = shares[shares > 0].sort().values
    assert len(some) == 20
    for number, share in enumerate(some.tolist()):
        assert 0.1 + 0.02 * number - 0.003 <= share <= 0.1 + 0.02 * (number + 1) + 0.003
    assert not torch.equal(shares.argsort(descending=True)[:20].sort().values, torch.arange(20))


def test_student_sees_the_token_at_hidden_locations() -> None:
    """The student's output does not depend on hidden pixels."""
    objective: Any = start(spec_of("ibot", masked=1.0, least_mask=0.5)).model
    views = random_views((16, 16, 8, 8))
    hidden = objective.draw(12, 2, torch_generator("cpu", 3, "objective"))
    pixels = hidden.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)[:, None]
    noise = torch.randn(12, 3, 16, 16)
    changed = torch.where(pixels, noise, torch.cat(views[:2])).chunk(2)
    first = objective(views, torch_generator("cpu", 3, "objective")).encoded
    second = objective([*changed, *views[2:]], torch_generator("cpu", 3, "objective")).encoded
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one, other)
    assert hidden.any(dim=(1, 2)).all()


def test_ibot_adds_the_location_loss() -> None:
    views, values = random_views((16, 16, 8, 8)), []
    for weight in (0.0, 1.0, 3.0):
        objective = start(spec_of("ibot", place_weight=weight)).model
        values.append(float(objective(views, torch_generator("cpu", 0, "x")).loss.detach()))
    assert values[2] - values[0] == pytest.approx(3 * (values[1] - values[0]), rel=1e-4)
    assert values[1] > values[0]


# DINOv2 and DINOv3.


def test_koleo_by_loops() -> None:
    views, losses = random_views((16, 16, 8, 8)), []
    for weight in (0.0, 0.1):
        objective = start(spec_of("dinov2", koleo_weight=weight)).model
        output = objective(views, torch_generator("cpu", 0, "x"))
        losses.append(float(output.loss.detach()))
    expected = 0.0
    for encoded in output.encoded[:2]:
        features = nn.functional.normalize(encoded[:, 0].detach().double(), dim=1)
        for one in range(6):
            others = [features[other] for other in range(6) if other != one]
            nearest = min(float((features[one] - other).norm()) for other in others)
            expected -= math.log(nearest + 1e-8) / 6
    assert losses[1] - losses[0] == pytest.approx(0.1 * expected, rel=1e-3)


def test_gram_loss_by_loops() -> None:
    now, past = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    terms = []
    for image in range(3):
        for one in range(4):
            for other in range(4):
                pairs = [(x[image, one], x[image, other]) for x in (now, past)]
                cosines = [float(a @ b / (a.norm() * b.norm())) for a, b in pairs]
                terms.append((cosines[0] - cosines[1]) ** 2)
    assert float(gram_loss(now, past)) == pytest.approx(sum(terms) / len(terms))


def test_gram_teacher_is_the_momentum_teacher_at_the_end_of_the_last_task() -> None:
    used: list[tuple[int, State]] = []

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def before_forward(self, trainer: Any, **_: Any) -> None:
            assert trainer.model.anchored == (trainer.task > 0)
            used.append((trainer.task, state_of(trainer.model.gram_teacher)))

    template = start(spec_of("dinov3"), plugins=[Look()])
    ends = []
    for task in range(3):
        train(template, [task])
        ends.append(state_of(template.model.teacher))
    assert differing(ends[0], ends[1])
    for task, teacher in used:
        assert task == 0 or not differing(teacher, ends[task - 1])


def test_gram_anchoring_is_added_from_the_second_task_on() -> None:
    plain, anchored = (train(start(spec_of("dinov3", gram_weight=w)), [0, 1]) for w in (0.0, 2.0))
    name = "encoder.masked_vit.vit.patch_embed.proj.weight"
    assert torch.equal(plain[0][name], anchored[0][name])
    assert not torch.equal(plain[1][name], anchored[1][name])
    template = start(spec_of("dinov3"))
    train(template, [0])
    objective: Any = copy.deepcopy(template.model)
    views, losses = random_views((16, 16, 8, 8)), []
    for objective.anchored in (False, True):
        output = copy.deepcopy(objective)(views, torch_generator("cpu", 0, "x"))
        losses.append(float(output.loss.detach()))
    past = objective.gram_teacher(torch.cat(views[:2]))[:, 1:]
    now = torch.cat([one[:, 1:] for one in output.encoded[:2]])
    added = 2 * float(gram_loss(now.detach(), past))
    assert losses[1] - losses[0] == pytest.approx(added, rel=1e-4)


# Other encoders and errors.


def test_dino_on_other_encoders() -> None:
    check_objective("dino", {**SMALL, "feature": "patches"}, RESNET)
    check_objective("dino", {**SMALL, "feature": "patches"}, SWIN)


def test_ibot_on_swin() -> None:
    check_objective("ibot", {**SMALL, "feature": "patches"}, SWIN)


@pytest.mark.parametrize("name", FAMILY)
def test_class_token_of_an_encoder_without_one_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="Swin has no class token to pool by; set feature ="):
        start(tiny_spec(recipe({"name": name, **SMALL}), backbone=SWIN))


@pytest.mark.parametrize("name", ["ibot", "dinov2", "dinov3"])
def test_encoder_that_cannot_hide_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="a token in place of parts of an image"):
        start(tiny_spec(recipe({"name": name, **SMALL, "feature": "patches"}), backbone=RESNET))


def test_declared_properties() -> None:
    kinds = (DINO, IBOT, DINOv2, DINOv3)
    for name, kind in zip(FAMILY, kinds, strict=True):
        assert type(start(spec_of(name)).model) is kind


# Collapse: centering prevents it.


def prototypes_in_use(objective: Any, logits: Tensor) -> float:
    """Return exp(entropy of the mean distribution), as a share of the prototypes."""
    mean = torch.softmax(logits / objective.params.student_temperature, dim=-1).mean(dim=0)
    entropy = -(mean * mean.clamp(min=1e-30).log()).sum()
    return float(entropy.exp()) / len(mean)


@pytest.mark.parametrize("name", FAMILY)
def test_collapse_is_prevented(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without centering, all images end at one prototype; logits of DINOv3 start smaller."""
    used = []
    for broken in (False, True):
        if broken:
            monkeypatch.setattr(
                TeacherTargets,
                "forward",
                lambda _, logits, temperature: (logits / temperature).softmax(-1),
            )
        spec = spec_of(name, frozen_epochs=0, momentum=0.9)
        objective: Any = build_objective(spec, torch.device("cpu"))
        images = train_on_noise(objective, steps=160 if name == "dinov3" else 60)
        with torch.no_grad():
            feature = objective.encoder.pool(objective.encoder(images), objective.feature)
            used.append(prototypes_in_use(objective, objective.projector(feature)))
    sound, collapsed = used
    assert sound > 0.5
    assert collapsed < 0.1
