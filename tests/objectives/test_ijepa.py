"""I-JEPA against a transcription of Assran et al. (2023), token by token."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers.masked import build, encoder_of, pixels
from torch import Tensor, nn

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.errors import SpecError
from rscl_bench.models.momentum import ema_update
from rscl_bench.models.vit import ViT, ViTParams
from rscl_bench.objectives.ijepa import IJEPA, IJEPAParams
from rscl_bench.probes.collapse_metrics import collapse_metrics
from rscl_bench.randomness import torch_generator
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import recipe, state_of
from rscl_bench.views.view import View

SMALL = {"predictor_dim": 24, "predictor_depth": 2, "predictor_heads": 2}


def ijepa(image_size: int = 16, bands: int = 3, **params: Any) -> Any:
    return build("i-jepa", encoder_of("vit", image_size, bands), **{**SMALL, **params})


def at_14(**params: Any) -> Any:
    """Return the objective for the paper's 14 × 14 patches."""
    encoder = ViT(ViTParams(patch_size=2, embed_dim=8, depth=1, num_heads=1), 28, 1)
    return build("i-jepa", encoder, **{**SMALL, **params})


def with_random_weights(objective: nn.Module) -> None:
    """Set every weight to noise, so that biases, norms and the teacher matter."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in objective.named_parameters():
        if not name.endswith("pos_embed"):
            parameter.data.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


# Blocks


def square(places: Tensor, side: int = 14) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the smallest rectangle around patches."""
    rows, columns = places // side, places % side
    top, left = int(rows.min()), int(columns.min())
    return top, left, int(rows.max()) - top + 1, int(columns.max()) - left + 1


def test_targets_are_blocks_of_one_size() -> None:
    objective = at_14()
    shapes = set()
    for seed in range(60):
        _, targets = objective.draw(6, torch_generator("cpu", seed))
        assert targets.shape[:2] == (6, 4)
        found = {square(block)[2:] for block in targets.flatten(0, 1)}
        assert len(found) == 1
        height, width = found.pop()
        assert targets.shape[2] == height * width
        shapes.add((height, width))
    # Every size that a draw u can give: area 196 (.15 + .05 u), aspect ratio .75 + .75 u.
    expected = set()
    for u in np.linspace(0, 1, 2001)[:-1]:
        area, ratio = int(196 * (0.15 + 0.05 * u)), 0.75 + 0.75 * u
        expected.add((round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))))
    assert shapes <= expected
    assert len(shapes) >= len(expected) - 1


def test_contexts_are_blocks_without_targets() -> None:
    objective = at_14()
    for seed in range(30):
        context, targets = objective.draw(6, torch_generator("cpu", seed))
        assert context.shape[1] > 0
        for image in range(6):
            kept = context[image].tolist()
            assert kept == sorted(set(kept))
            assert not set(kept) & set(targets[image].flatten().tolist())


def test_contexts_are_cut_from_the_bottom_alone() -> None:
    """The smallest context is a square without the targets; the others are cut to its size."""
    objective = at_14(context_scale=(1.0, 1.0))
    for seed in range(20):
        context, targets = objective.draw(5, torch_generator("cpu", seed))
        free = [sorted(set(range(196)) - set(one.flatten().tolist())) for one in targets]
        least = min(map(len, free))
        assert context.tolist() == [one[:least] for one in free]


def test_context_block_is_as_large_as_it_should() -> None:
    objective = at_14(context_scale=(0.5, 0.5), targets=1, target_scale=(0.001, 0.001))
    context, _ = objective.draw(40, torch_generator("cpu", 0))
    for one in context:
        assert square(one)[2:] == (10, 10)  # 98 patches
    assert context.shape[1] == 99


def test_blocks_reach_every_patch() -> None:
    objective = at_14()
    draws = [objective.draw(64, torch_generator("cpu", seed)) for seed in range(4)]
    for number in range(2):
        drawn = torch.cat([draw[number].flatten() for draw in draws])
        assert len(set(drawn.tolist())) == 196


def test_targets_stay_in_where_they_would_leave_too_little() -> None:
    # Two targets as large as the image: the context keeps the last target, then both.
    objective = at_14(targets=2, target_scale=(1.0, 1.0), target_aspect=(1.0, 1.0))
    context, _ = objective.draw(3, torch_generator("cpu", 0))
    assert context.shape[1] >= 150
    # No context is large enough, even with all targets kept: the context keeps all targets.
    objective = at_14(min_context=190, context_scale=(0.5, 0.5))
    context, _ = objective.draw(30, torch_generator("cpu", 0))
    assert context.shape[1] == 100


def test_a_small_context_is_drawn_again() -> None:
    least = []
    for patches in (1, 60):
        objective = at_14(min_context=patches)
        drawn = [objective.draw(8, torch_generator("cpu", seed))[0].shape[1] for seed in range(30)]
        least.append(min(drawn))
    assert least[0] < 60 < least[1]


@pytest.mark.parametrize("image_size", [8, 12, 32])
def test_grids_of_any_size(image_size: int) -> None:
    objective = ijepa(image_size)
    for seed in range(20):
        context, targets = objective.draw(4, torch_generator("cpu", seed))
        assert context.shape[1] >= 1
        assert targets.shape[2] >= 1


def test_blocks_are_the_seeds_alone() -> None:
    objective = at_14()
    used = torch_generator("cpu", 3)
    torch.rand(5, generator=used)
    again = objective.draw(4, torch_generator("cpu", 3))
    assert all(map(torch.equal, objective.draw(4, used), again))
    other = objective.draw(4, torch_generator("cpu", 4))
    assert other[0].shape != again[0].shape or not torch.equal(other[0], again[0])


# The loss


def slow_loss(objective: Any, images: Tensor, context: Tensor, targets: Tensor) -> float:
    """Return the loss, image by image and target by target."""
    model = copy.deepcopy(objective).double()
    predictor, positions = model.predictor, model.predictor.decoder.pos_embed[0]
    losses: list[float] = []
    for image in range(len(images)):
        one = images[image : image + 1].double()
        keep = torch.tensor([[0, *(1 + n for n in context[image].tolist())]])
        seen = model.encoder(one, keep)[0, 1:]
        taught = model.teacher(one)[0, 1:]
        for block in targets[image].tolist():
            tokens = [
                predictor.predictor_embed(token) + positions[place]
                for token, place in zip(seen, context[image].tolist(), strict=True)
            ]
            tokens += [predictor.decoder.mask_token[0, 0] + positions[place] for place in block]
            sequence = torch.stack(tokens)[None]
            for layer in predictor.decoder.blocks:
                sequence = layer(sequence)
            outputs = predictor.predictor_proj(predictor.decoder.norm(sequence))[0, len(seen) :]
            for output, place in zip(outputs.tolist(), block, strict=True):
                values = taught[place].tolist()
                mean = sum(values) / len(values)
                variance = sum((v - mean) ** 2 for v in values) / len(values)
                for predicted, value in zip(output, values, strict=True):
                    error = abs(predicted - (value - mean) / math.sqrt(variance + 1e-5))
                    losses.append(error**2 / 2 if error < 1 else error - 0.5)
    return sum(losses) / len(losses)


@pytest.mark.parametrize("bands", [3, 4])
def test_loss_equals_the_transcription(bands: int) -> None:
    objective = ijepa(bands=bands)
    with_random_weights(objective)
    images = pixels(3, bands)
    context, targets = objective.draw(3, torch_generator("cpu", 5))
    with torch.no_grad():
        loss = float(objective([images], torch_generator("cpu", 5)).loss)
        expected = slow_loss(objective, images, context, targets)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_gradients_reach_the_student_alone() -> None:
    objective = ijepa()
    objective([pixels(4)], torch_generator("cpu", 0)).loss.backward()
    for name, parameter in objective.named_parameters():
        if name.startswith("teacher") or name.endswith("pos_embed"):
            assert not parameter.requires_grad, name
            assert parameter.grad is None, name
        else:
            assert parameter.grad is not None, name
            assert parameter.grad.any(), name


def test_student_sees_the_context_and_the_class_token_alone() -> None:
    objective = ijepa()
    images = pixels(3)
    context, _ = objective.draw(3, torch_generator("cpu", 5))
    output = objective([images], torch_generator("cpu", 5))
    assert output.encoded[0].shape == (3, 1 + context.shape[1], 24)
    shown = torch.zeros(3, 16, dtype=torch.bool).scatter_(1, context, True).reshape(3, 4, 4)
    shown = shown.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, None]
    other = torch.where(shown, images, pixels(3, seed=8))
    encoded = objective([other], torch_generator("cpu", 5)).encoded[0]
    assert torch.equal(encoded, output.encoded[0])
    # The target encoder sees the rest.
    assert not torch.equal(objective([other], torch_generator("cpu", 5)).loss, output.loss)


def test_predictor_is_the_papers() -> None:
    params = IJEPAParams()
    assert (params.predictor_dim, params.predictor_depth, params.predictor_heads) == (384, 6, 12)
    objective = ijepa(predictor_dim=32, predictor_depth=3)
    blocks = objective.predictor.decoder.blocks
    assert len(blocks) == 3
    assert 0.01 < objective.predictor.decoder.mask_token.std() < 0.03
    for number, block in enumerate(blocks, start=1):
        first, second = (
            float(layer.weight.detach().std()) for layer in (block.mlp.fc1, block.mlp.fc2)
        )
        assert first == pytest.approx(0.02, rel=0.1)
        assert second == pytest.approx(0.02 / math.sqrt(2 * number), rel=0.1)
        assert not block.attn.qkv.bias.any()


# The target encoder


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Records student and target encoder after every update."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, int, dict[str, Tensor], dict[str, Tensor]]] = []

    def after_update(self, trainer: Any, **_: Any) -> None:
        model = trainer.model
        states = state_of(model.encoder), state_of(model.teacher)
        self.steps.append((trainer.step, trainer.steps, *states))


def test_target_encoder_follows_linearly() -> None:
    watch = Watch()
    spec = tiny_spec(recipe({"name": "i-jepa", **SMALL, "momentum": 0.6}))
    template = start(spec, plugins=[watch])
    teacher = state_of(template.model.encoder)
    train(template, [0, 1])
    assert [step[:2] for step in watch.steps] == [(n, 4) for _ in (0, 1) for n in range(4)]
    for step, steps, student, followed in watch.steps:
        momentum = 0.6 + 0.4 * step / steps
        for name, value in teacher.items():
            teacher[name] = momentum * value + (1 - momentum) * student[name]
            assert torch.allclose(followed[name], teacher[name], atol=1e-6), name
    assert any(not torch.equal(value, student[name]) for name, value in teacher.items())


# Collapse


class NoTeacher(IJEPA):
    """Predicts its own tokens, with gradient through the targets."""

    def tokens(self, images: Tensor) -> Tensor:
        with torch.enable_grad():
            patches = self.encoder(images)[:, 1:]
            return F.layer_norm(patches, patches.shape[-1:])


def spread_after(kind: type[IJEPA], steps: int = 150) -> tuple[float, float]:
    """Return the spread of features before and after training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        objective = kind(IJEPAParams(**SMALL), encoder_of("vit"))
    coarse = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    images = F.interpolate(coarse, 16, mode="bilinear")
    trained = [p for p in objective.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(trained, 5e-4, fused=True)

    def spread_now() -> float:
        with torch.no_grad():
            features = objective.encoder.pool(objective.encoder(images))
        return collapse_metrics(features.numpy()).std

    before = spread_now()
    for step in range(steps):
        optimiser.zero_grad()
        objective([images], torch_generator("cpu", step)).loss.backward()
        optimiser.step()
        ema_update(objective.teacher, objective.encoder, 0.98)
    return before, spread_now()


def test_features_collapse_without_the_teacher() -> None:
    (start_at, with_teacher), (same, without) = spread_after(IJEPA), spread_after(NoTeacher)
    assert start_at == same
    assert with_teacher > start_at
    assert without < 0.5 * start_at


# Options and errors


def test_view_is_the_papers() -> None:
    assert ijepa().views == (View(min_scale=0.3),)


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        ("resnet", {}, "'i-jepa' needs an encoder that can leave patches out, which ResNet cannot"),
        ("swin", {}, "'i-jepa' needs an encoder that can leave patches out, which Swin cannot"),
        ("vit", {"predictor_dim": 30}, "predictor_dim 30 must be a multiple of 4 and of"),
        ("vit", {"predictor_heads": 5}, r"of predictor_heads \(5\)"),
        ("vit", {"view": {"size": 0.5}}, "view.size 0.5 does not fit the predictor's positions"),
    ],
)
def test_invalid_settings_are_refused(kind: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build("i-jepa", encoder_of(kind), **{**SMALL, **params})
