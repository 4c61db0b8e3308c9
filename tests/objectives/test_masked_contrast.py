"""Masked contrast against a transcription, image by image, with the projector written out."""

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from helpers.joint_embeddings import cosine, cross_entropy, mean
from helpers.masked import encoder_of, pixels
from numpy.typing import NDArray
from torch import Tensor, nn

from rscl_bench.engine.build import build_objective
from rscl_bench.engine.flops import count_flops
from rscl_bench.errors import SpecError
from rscl_bench.models.vit import ViT, ViTParams
from rscl_bench.objectives.base import StepInfo
from rscl_bench.objectives.mae import MAE, MAEParams
from rscl_bench.objectives.masked_contrast import (
    MaskedContrast,
    MaskedContrastParams,
    MomentumMaskedContrast,
    MomentumMaskedContrastParams,
)
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import validated
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import recipe
from rscl_bench.views.view import View

Array = NDArray[np.float64]
SMALL: dict[str, Any] = {
    "decoder_dim": 24,
    "decoder_depth": 1,
    "decoder_heads": 2,
    "hidden_dim": 16,
    "output_dim": 8,
}


def build(**params: Any) -> Any:
    """Return the objective around a ViT of 16 patches, of which 4 are visible."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return MaskedContrast(
            MaskedContrastParams(**{**SMALL, **params}), encoder_of("vit")
        ).train()


def order_of(count: int, patches: int, seed: int) -> list[list[int]]:
    """Return the patches of each masked image, the visible ones first, counted from 0."""
    return orders(torch.rand(count, patches, generator=torch_generator("cpu", seed)))


def orders(noise: Tensor) -> list[list[int]]:
    """Return the patches of each row by rising noise."""
    return [sorted(range(len(row)), key=row.__getitem__) for row in noise.tolist()]


def encoded_alone(objective: Any, image: Tensor, visible: Sequence[int]) -> Tensor:
    """Return the tokens of one image, ``[1, 1 + V, D]``."""
    keep = torch.tensor([[0, *(1 + patch for patch in visible)]])
    with torch.no_grad():
        encoded: Tensor = objective.vit(image[None], keep)
    return encoded


def projected_by_hand(objective: Any, pooled: Sequence[Array]) -> list[Array]:
    """Return g: linear, batch normalisation over all rows, ReLU, linear."""
    first, norm, _, last = (layer for layer in objective.projector)
    rows = [first.weight.detach().double().numpy() @ row for row in pooled]
    columns = np.stack(rows).T
    normed = np.stack(
        [(c - c.mean()) / math.sqrt(((c - c.mean()) ** 2).mean() + norm.eps) for c in columns]
    ).T
    scaled = normed * norm.weight.detach().double().numpy() + norm.bias.detach().double().numpy()
    weight = last.weight.detach().double().numpy()
    bias = 0.0 if last.bias is None else last.bias.detach().double().numpy()
    return [weight @ np.maximum(row, 0) + bias for row in scaled]


def reconstruction_by_hand(
    objective: Any, image: Tensor, encoded: Tensor, order: Sequence[int]
) -> float:
    """Return the mean squared error over the hidden patches of one image, pixel by pixel."""
    visible = objective.visible
    keep = torch.tensor([[0, *(1 + patch for patch in order[:visible])]])
    hidden = torch.tensor([[1 + patch for patch in order[visible:]]])
    with torch.no_grad():
        predicted = objective.decode(encoded, keep, hidden, image[None])[0].double().numpy()
    errors = []
    size, side = objective.vit.patch_size, image.shape[-1] // objective.vit.patch_size
    for values, patch in zip(predicted, order[visible:], strict=True):
        row, column = divmod(patch, side)
        part = image[:, row * size : (row + 1) * size, column * size : (column + 1) * size]
        target = part.permute(1, 2, 0).reshape(-1).double().numpy()
        if objective.params.norm_pix:
            centred = target - target.mean()
            target = centred / math.sqrt((centred**2).sum() / (len(target) - 1) + 1e-6)
        errors.append(((values - target) ** 2).mean())
    return mean(errors)


def nt_xent(first: Sequence[Array], second: Sequence[Array], temperature: float) -> float:
    """Return the cross-entropy of finding a row's partner among all other rows of both views."""
    rows = [torch.from_numpy(row) for row in (*first, *second)]
    losses = []
    for number, row in enumerate(rows):
        partner = (number + len(first)) % len(rows)
        others = [n for n in range(len(rows)) if n != number]
        logits = [cosine(row, rows[other]) / temperature for other in others]
        losses.append(cross_entropy(logits, others.index(partner)))
    return mean(losses)


def vicreg(first: Sequence[Array], second: Sequence[Array]) -> float:
    """Return VICReg's loss with weights 25, 25 and 1, by NumPy's own covariance."""
    one, two = np.stack(first), np.stack(second)
    loss = 25 * ((one - two) ** 2).mean()
    for rows in (one, two):
        covariance = np.cov(rows.T)
        deviations = np.sqrt(np.diag(covariance) + 1e-4)
        loss += 25 * np.maximum(0, 1 - deviations).mean() / 2
        loss += ((covariance - np.diag(np.diag(covariance))) ** 2).sum() / len(covariance)
    return float(loss)


def momentum_by_hand(objective: Any, views: Sequence[Tensor], seed: int) -> tuple[float, float]:
    """Return reconstruction and comparison of one step with a teacher."""
    generator = torch_generator("cpu", seed)
    patches = objective.vit.num_patches
    noises = [torch.rand(len(views[0]), patches, generator=generator) for _ in range(2)]
    student, teacher = (orders(noise) for noise in noises)
    old = copy.deepcopy(objective)
    old.encoder, old.projector = old.teacher, old.teacher_projector
    encoded = [
        encoded_alone(objective, image, order[: objective.visible])
        for image, order in zip(views[0], student, strict=True)
    ]
    targets = [
        encoded_alone(old, image, order[: round(patches * objective.params.teacher_visible)])
        for image, order in zip(views[-1], teacher, strict=True)
    ]
    errors = [
        reconstruction_by_hand(objective, image, tokens, order)
        for image, order, tokens in zip(views[0], student, encoded, strict=True)
    ]
    first, second = (
        projected_by_hand(one, [tokens[0, 1:].double().numpy().mean(axis=0) for tokens in given])
        for one, given in ((objective, encoded), (old, targets))
    )
    if objective.params.comparison == "vicreg":
        return mean(errors), vicreg(first, second)
    return mean(errors), nt_xent(first, second, objective.params.temperature)


def by_hand(objective: Any, views: Sequence[Tensor], seed: int) -> tuple[float, float]:
    """Return reconstruction and comparison of one step."""
    images = [*views[0], *views[-1]]
    orders = order_of(len(images), objective.vit.num_patches, seed)
    pairs = list(zip(images, orders, strict=True))
    encoded = [encoded_alone(objective, i, order[: objective.visible]) for i, order in pairs]
    pooled = [tokens[0, 1:].double().numpy().mean(axis=0) for tokens in encoded]
    projected = projected_by_hand(objective, pooled)
    half = len(images) // 2
    decoded = half if objective.params.decoded == "first" else len(images)
    errors = [
        reconstruction_by_hand(objective, image, tokens, order)
        for (image, order), tokens in zip(pairs[:decoded], encoded[:decoded], strict=True)
    ]
    halves = projected[:half], projected[half:]
    if objective.params.comparison == "vicreg":
        return mean(errors), vicreg(*halves)
    return mean(errors), nt_xent(*halves, objective.params.temperature)


@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize(
    "params",
    [
        {},
        {"decoded": "both", "weight": 0.7},
        {"same_crop": True, "norm_pix": True},
        {"comparison": "vicreg", "mask_ratio": 0.5},
        {"temperature": 0.07, "weight": 2.0, "decoded": "both", "norm_pix": True},
    ],
)
def test_loss_by_hand(params: dict[str, Any], seed: int) -> None:
    objective = build(**params)
    views = [pixels(5, seed=seed + n) for n in range(len(objective.views))]
    loss = objective(views, torch_generator("cpu", seed)).loss.item()
    reconstruction, comparison = by_hand(objective, views, seed)
    assert comparison > 0.05
    expected = reconstruction + objective.params.weight * comparison
    assert loss == pytest.approx(expected, rel=2e-5)


def test_loss_by_hand_after_training() -> None:
    """At every fourth step of an optimiser, with what the optimiser has made of all weights."""
    objective = build()
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    for step in range(9):
        views = [pixels(4, seed=10 + step), pixels(4, seed=30 + step)]
        if step % 4 == 0:
            reconstruction, comparison = by_hand(copy.deepcopy(objective), views, step)
        optimiser.zero_grad()
        loss = objective(views, torch_generator("cpu", step)).loss
        if step % 4 == 0:
            assert loss.item() == pytest.approx(reconstruction + 0.1 * comparison, rel=1e-4)
        loss.backward()
        optimiser.step()


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"same_crop": True, "teacher_visible": 1.0},
        {"comparison": "vicreg", "teacher_visible": 0.25, "weight": 0.3},
    ],
)
def test_loss_with_a_teacher_by_hand(params: dict[str, Any]) -> None:
    """The teacher differs from the student and follows it by a moving average."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        values = MomentumMaskedContrastParams(**{**SMALL, "momentum": 0.8, **params})
        objective: Any = MomentumMaskedContrast(values, encoder_of("vit")).train()
    optimiser = torch.optim.AdamW([p for p in objective.parameters() if p.requires_grad], lr=3e-3)
    for step in range(3):
        views = [pixels(5, seed=10 + 2 * step + n) for n in range(len(objective.views))]
        reconstruction, comparison = momentum_by_hand(objective, views, step)
        optimiser.zero_grad()
        output = objective(views, torch_generator("cpu", step))
        expected = reconstruction + values.weight * comparison
        assert output.loss.item() == pytest.approx(expected, rel=1e-4)
        assert len(output.encoded) == len(output.projected) == 1
        output.loss.backward()
        assert all(p.grad is None for p in objective.teacher.parameters())
        optimiser.step()
        pairs = [(objective.teacher, objective.encoder)]
        pairs += [(objective.teacher_projector, objective.projector)]
        before = [[p.clone() for p in teacher.parameters()] for teacher, _ in pairs]
        objective.after_update(StepInfo(0, step, 3, 1, [], []))
        for old, (teacher, student) in zip(before, pairs, strict=True):
            rows = zip(old, teacher.parameters(), student.parameters(), strict=True)
            for was, now, new in rows:
                torch.testing.assert_close(now, 0.8 * was + 0.2 * new.detach())


def test_reconstruction_is_that_of_a_masked_autoencoder() -> None:
    """With a weight of almost 0, the first crop's loss is a masked autoencoder's, gradient too."""
    objective = build(weight=1e-12)
    plain = MAE(MAEParams(**{k: v for k, v in SMALL.items() if "decoder" in k}), encoder_of("vit"))
    plain.load_state_dict(
        {name: objective.state_dict()[name] for name in plain.state_dict()}, strict=True
    )
    views = [pixels(5, seed=1), pixels(5, seed=2)]
    loss = objective(views, torch_generator("cpu", 6)).loss
    noise = torch.rand(10, 16, generator=torch_generator("cpu", 6))
    keep, hidden = plain.split_tokens(noise[:5])
    expected = plain.reconstruction(plain.vit(views[0], keep), keep, hidden, views[0])
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    loss.backward()
    torch.autograd.backward(expected)
    own = dict(objective.named_parameters())
    for name, parameter in plain.named_parameters():
        if parameter.grad is not None:
            torch.testing.assert_close(own[name].grad, parameter.grad, rtol=1e-4, atol=1e-6)


def test_each_crop_has_a_mask_of_its_own() -> None:
    objective = build(same_crop=True)
    seen: list[Tensor] = []
    objective.encoder.register_forward_hook(lambda _m, given, _r: seen.append(given[1]))
    (view,) = [pixels(6)]
    output = objective([view], torch_generator("cpu", 0))
    (keep,) = seen
    assert keep.shape == (12, 1 + 4)
    rows = [set(row.tolist()) for row in keep]
    assert all(row != other for row, other in zip(rows[:6], rows[6:], strict=True))
    assert len({tuple(sorted(row)) for row in rows}) > 6
    assert [tuple(one.shape) for one in output.encoded] == [(6, 5, 24)]
    assert [tuple(one.shape) for one in output.projected] == [(6, 8)]


@pytest.mark.parametrize(("decoded", "count"), [("first", 5), ("both", 10)])
def test_decoder_sees_the_stated_crops(decoded: str, count: int) -> None:
    objective = build(decoded=decoded)
    seen: list[int] = []
    objective.embed.register_forward_hook(lambda _m, given, _r: seen.append(len(given[0])))
    output = objective([pixels(5), pixels(5, seed=1)], torch_generator("cpu", 0))
    assert seen == [count]
    assert [tuple(one.shape) for one in output.encoded] == [(5, 5, 24)] * 2
    assert [tuple(one.shape) for one in output.projected] == [(5, 8)] * 2


def test_contrast_brings_crops_together_and_images_apart() -> None:
    """After training, the other crop of an image is more often the nearest of all images."""
    objective = build(weight=1.0)
    images = pixels(8, seed=5)
    optimiser = torch.optim.AdamW(objective.parameters(), lr=3e-3)

    def found(step: int) -> float:
        with torch.no_grad():
            one, two = objective([images, images], torch_generator("cpu", step)).projected
        near = nn.functional.normalize(one, dim=1) @ nn.functional.normalize(two, dim=1).T
        return (near.argmax(dim=1) == torch.arange(8)).float().mean().item()

    before = mean([found(1000 + n) for n in range(10)])
    for step in range(100):
        optimiser.zero_grad()
        objective([images, images], torch_generator("cpu", step)).loss.backward()
        optimiser.step()
    after = mean([found(1000 + n) for n in range(10)])
    assert before < 0.35
    assert after > 2 * before


def test_parameters_and_shapes_by_default() -> None:
    params = MaskedContrastParams()
    assert params.view == View(min_scale=0.2)
    assert (params.weight, params.temperature, params.mask_ratio) == (0.1, 0.2, 0.75)
    assert (params.decoded, params.same_crop, params.comparison) == ("first", False, "ntxent")
    objective = build(hidden_dim=512, output_dim=128)
    shapes = [tuple(p.shape) for p in objective.projector.parameters()]
    assert shapes == [(512, 24), (512,), (512,), (128, 512), (128,)]
    assert [type(layer) for layer in objective.projector] == [
        nn.Linear,
        nn.BatchNorm1d,
        nn.ReLU,
        nn.Linear,
    ]
    assert build(comparison="vicreg").projector[-1].bias is None


@pytest.mark.slow
def test_operations_at_vit_b() -> None:
    """One decoder and two masked encoders, in GFLOP an image; a masked autoencoder has 58.3."""
    encoder = ViT(ViTParams(), 224, 3)
    counted = {}
    for name, decoded in (("one", "first"), ("two", "both")):
        objective = MaskedContrast(MaskedContrastParams(decoded=decoded), encoder)
        flops = count_flops(objective, 224)
        assert flops.without_gradient == 0
        counted[name] = flops.with_gradient / 1e9
    assert counted["one"] == pytest.approx(84.56, abs=0.05)
    assert counted["two"] == pytest.approx(116.68, abs=0.05)


def test_ewc_by_batches_holds_the_projector_too() -> None:
    """EWC needs estimate = "batch", because the loss compares images."""
    objective = {"name": "masked-contrast", **SMALL}
    trainer = start(tiny_spec(recipe(objective, [{"name": "ewc", "estimate": "batch"}])))
    train(trainer, [0])
    state = trainer.strategies[0].state_dict()
    assert any(value.any() for value in state.values())
    with pytest.raises(SpecError, match="needs an objective with 'per_image_loss'"):
        start(tiny_spec(recipe(objective, [{"name": "ewc"}])))


@pytest.mark.parametrize("strategy", ["pfr", "cassle"])
def test_strategies_compare_the_crop_that_the_encoder_sees(strategy: str) -> None:
    objective = {"name": "momentum-masked-contrast", **SMALL}
    trainer = start(tiny_spec(recipe(objective, [{"name": strategy}]), tasks=2))
    seen: list[int] = []
    head = trainer.strategies[0].head
    assert head is not None
    head.register_forward_hook(lambda _m, given, _r: seen.append(len(given[0])))
    train(trainer)
    assert seen == [8] * 4  # once for each of the four steps of the second task


def test_small_crops_and_other_backbones_are_refused() -> None:
    with pytest.raises(SpecError, match=r"view.size is 0.5; a decoder needs crops of full size"):
        validated(MaskedContrastParams, {"view": {"size": 0.5}}, "recipe")
    with pytest.raises(SpecError, match="needs an encoder that can leave patches out"):
        MaskedContrast(MaskedContrastParams(**SMALL), encoder_of("resnet"))


def test_batch_of_one_image_is_refused() -> None:
    method = recipe({"name": "masked-contrast", **SMALL})
    spec = tiny_spec(method, assignments=["training.batch_size=1"])
    build_objective(spec, torch.device("cpu"))
    with pytest.raises(SpecError, match="compares the images of a batch"):
        start(spec)
