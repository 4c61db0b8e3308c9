"""The masked autoencoder against a transcription of He et al. (2022) in NumPy, token by token."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.masked import pixels
from numpy.typing import NDArray
from scipy.special import erf

from rscl_bench.errors import SpecError
from rscl_bench.models.optimiser import learning_rate, weight_decay_groups
from rscl_bench.models.vit import ViT, ViTParams
from rscl_bench.objectives.mae import MAE, MAEParams
from rscl_bench.randomness import torch_generator

Array = NDArray[np.float64]
Weights = dict[str, Array]

VIT = ViTParams(patch_size=4, embed_dim=24, depth=2, num_heads=3, mlp_ratio=2.0)


def build(bands: int = 3, image_size: int = 16, vit: ViTParams = VIT, **params: Any) -> MAE:
    shape = {"decoder_dim": 16, "decoder_depth": 2, "decoder_heads": 2, **params}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MAE(MAEParams(**shape), ViT(vit, image_size, bands))


def with_random_weights(mae: MAE) -> MAE:
    """Set every trained weight to noise, so that biases and norms matter."""
    generator = torch.Generator().manual_seed(1)
    for parameter in mae.parameters():
        if parameter.requires_grad:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.data.copy_(0.3 * noise)
    return mae


# The transcription. One image and one token at a time.


def sin_cos_positions(width: int, side: int) -> Array:
    """Return the positions: zeros for the class token; half the width for column, half for row."""
    rows = [np.zeros(width)]
    frequencies = [1 / 10000 ** (4 * k / width) for k in range(width // 4)]
    for row in range(side):
        for column in range(side):
            values: list[float] = []
            for place in (column, row):
                values += [math.sin(place * f) for f in frequencies]
                values += [math.cos(place * f) for f in frequencies]
            rows.append(np.array(values))
    return np.stack(rows)


def layer_norm(token: Array, weights: Weights, name: str) -> Array:
    centred = token - token.mean()
    scaled = centred / math.sqrt((centred**2).mean() + 1e-6)
    result: Array = scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]
    return result


def linear(token: Array, weights: Weights, name: str) -> Array:
    result: Array = weights[f"{name}.weight"] @ token + weights[f"{name}.bias"]
    return result


def attention(tokens: list[Array], weights: Weights, name: str, heads: int) -> list[Array]:
    width = len(tokens[0])
    size = width // heads
    qkv = [linear(token, weights, f"{name}.qkv") for token in tokens]
    outputs = []
    for asking in qkv:
        parts = []
        for head in range(heads):
            place = slice(head * size, (head + 1) * size)
            query = asking[:width][place]
            logits = [float(query @ key[width : 2 * width][place]) / math.sqrt(size) for key in qkv]
            weight = np.exp(np.array(logits) - max(logits))
            weight /= weight.sum()
            values = [value[2 * width :][place] for value in qkv]
            parts.append(np.sum([w * v for w, v in zip(weight, values, strict=True)], axis=0))
        outputs.append(linear(np.concatenate(parts), weights, f"{name}.proj"))
    return outputs


def block(tokens: list[Array], weights: Weights, name: str, heads: int) -> list[Array]:
    normed = [layer_norm(token, weights, f"{name}.norm1") for token in tokens]
    attended = attention(normed, weights, f"{name}.attn", heads)
    tokens = [token + change for token, change in zip(tokens, attended, strict=True)]
    results = []
    for token in tokens:
        hidden = linear(layer_norm(token, weights, f"{name}.norm2"), weights, f"{name}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + erf(hidden / math.sqrt(2)))
        results.append(token + linear(hidden, weights, f"{name}.mlp.fc2"))
    return results


def patches_of(image: Array, size: int) -> list[Array]:
    """Patches row by row, each flattened as (row, column, band)."""
    side = image.shape[1] // size
    flat = []
    for row in range(side):
        for column in range(side):
            values = [
                image[band, row * size + y, column * size + x]
                for y in range(size)
                for x in range(size)
                for band in range(image.shape[0])
            ]
            flat.append(np.array(values))
    return flat


def reference_loss(mae: MAE, images: Array, noise: Array) -> float:
    weights = {name: value.double().numpy() for name, value in mae.state_dict().items()}
    vit, size = "encoder.masked_vit.vit", mae.vit.patch_size
    kernel = weights[f"{vit}.patch_embed.proj.weight"]  # [D, C, p, p]
    # The rows of a patch are flattened as (row, column, band).
    weights["embed_patch.weight"] = kernel.transpose(0, 2, 3, 1).reshape(len(kernel), -1)
    weights["embed_patch.bias"] = weights[f"{vit}.patch_embed.proj.bias"]
    side = images.shape[2] // size
    positions = sin_cos_positions(len(kernel), side)
    decoder_positions = sin_cos_positions(mae.params.decoder_dim, side)
    visible = int(side * side * (1 - mae.params.mask_ratio))
    losses = []
    for image, order_noise in zip(images, noise, strict=True):
        patches = patches_of(image, size)
        order = sorted(range(len(patches)), key=lambda n: float(order_noise[n]))
        kept, hidden = order[:visible], order[visible:]
        tokens = [weights[f"{vit}.cls_token"][0, 0] + positions[0]]
        for n in kept:
            tokens.append(linear(patches[n], weights, "embed_patch") + positions[1 + n])
        for depth in range(VIT.depth):
            tokens = block(tokens, weights, f"{vit}.blocks.{depth}", VIT.num_heads)
        tokens = [layer_norm(token, weights, f"{vit}.norm") for token in tokens]
        tokens = [linear(token, weights, "embed") for token in tokens]
        full = [tokens[0]] + [weights["decoder.mask_token"][0, 0]] * len(patches)
        for place, n in enumerate(kept):
            full[1 + n] = tokens[1 + place]
        full = [token + position for token, position in zip(full, decoder_positions, strict=True)]
        for depth in range(mae.params.decoder_depth):
            full = block(full, weights, f"decoder.blocks.{depth}", mae.params.decoder_heads)
        for n in hidden:
            token = layer_norm(full[1 + n], weights, "decoder.norm")
            target = patches[n]
            if mae.params.norm_pix:
                deviation = math.sqrt(target.var(ddof=1) + 1e-6)
                target = (target - target.mean()) / deviation
            losses.append(float(((linear(token, weights, "predict") - target) ** 2).mean()))
    return float(np.mean(losses))


@pytest.mark.parametrize("norm_pix", [False, True])
@pytest.mark.parametrize(("bands", "mask_ratio"), [(3, 0.75), (4, 0.6)])
def test_loss_equals_the_transcription(norm_pix: bool, bands: int, mask_ratio: float) -> None:
    mae = with_random_weights(build(bands, norm_pix=norm_pix, mask_ratio=mask_ratio))
    images = pixels(2, bands, 16) * 2 + 0.5
    loss = float(mae([images], torch_generator("cpu", 3)).loss.detach())
    noise = torch.rand(2, 16, generator=torch_generator("cpu", 3)).double().numpy()
    expected = reference_loss(mae, images.double().numpy(), noise)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_loss_is_of_hidden_patches_alone() -> None:
    mae = with_random_weights(build())
    images = pixels(2, 3, 16)
    noise = torch.rand(2, 16, generator=torch_generator("cpu", 0))
    keep, hidden = mae.split_tokens(noise)
    targets = mae.targets(images, hidden)
    assert targets.shape == (2, 12, 48)
    visible = set((keep[0, 1:] - 1).tolist())
    expected = [p for n, p in enumerate(patches_of(images[0].double().numpy(), 4))]
    for row, n in enumerate((hidden[0] - 1).tolist()):
        assert n not in visible
        assert np.allclose(targets[0, row].double().numpy(), expected[n])


@pytest.mark.parametrize(
    ("image_size", "patch", "ratio", "visible"),
    [(224, 16, 0.75, 49), (64, 8, 0.75, 16), (16, 4, 0.6, 6), (16, 4, 0.9, 1)],
)
def test_counts_of_visible_patches(image_size: int, patch: int, ratio: float, visible: int) -> None:
    vit = ViTParams(patch_size=patch, embed_dim=8, depth=1, num_heads=1)
    mae = build(1, image_size, vit, mask_ratio=ratio)
    total = (image_size // patch) ** 2
    assert mae.visible == visible
    keep, hidden = mae.split_tokens(torch.rand(3, total, generator=torch_generator("cpu", 0)))
    assert keep.shape == (3, 1 + visible)
    assert hidden.shape == (3, total - visible)
    for row in range(3):
        assert keep[row, 0] == 0
        tokens = keep[row].tolist() + hidden[row].tolist()
        assert sorted(tokens) == list(range(1 + total))


def test_every_patch_is_hidden_as_often() -> None:
    mae = build()
    noise = torch.rand(4000, 16, generator=torch_generator("cpu", 0))
    _, hidden = mae.split_tokens(noise)
    share = torch.bincount(hidden.flatten() - 1, minlength=16) / 4000
    assert (share - 0.75).abs().max() < 0.035  # five standard deviations


def test_only_visible_patches_reach_the_encoder() -> None:
    mae = build()
    images = pixels(1, 3, 16)
    noise = torch.rand(1, 16, generator=torch_generator("cpu", 0))
    keep, hidden = mae.split_tokens(noise)
    changed = images.clone()
    for n in (hidden[0] - 1).tolist():
        row, column = divmod(n, 4)
        changed[:, :, row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] = 9.0
    assert torch.equal(mae.vit(images, keep), mae.vit(changed, keep))
    assert not torch.equal(mae.vit(images), mae.vit(changed))


def test_masks_come_from_the_generator() -> None:
    mae, images = build(), pixels(2, 3, 16)
    losses = [mae([images], torch_generator("cpu", seed)).loss.item() for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


def test_positions_are_sin_cos_and_fixed() -> None:
    mae = build()
    for positions, width in (
        (mae.vit.pos_embed, 24),
        (mae.decoder.pos_embed, 16),
    ):
        assert isinstance(positions, torch.nn.Parameter)
        assert not positions.requires_grad
        assert not positions[0, 0].any()
        expected = sin_cos_positions(width, 4)
        assert np.abs(positions[0].double().numpy() - expected).max() < 1e-6


def test_every_trained_parameter_gets_a_gradient() -> None:
    mae = build()
    mae([pixels(4, 3, 16)], torch_generator("cpu", 0)).loss.backward()
    for name, parameter in mae.named_parameters():
        if not parameter.requires_grad:
            assert name.endswith("pos_embed")
            continue
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name
    assert mae.vit.cls_token in set(mae.parameters())


def test_encoder_alone_has_no_unused_parameter() -> None:
    encoder = build().vit
    encoded = encoder(pixels(4, 3, 16))
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(encoded.shape, generator=generator)
    (encoded * weights).sum().backward()
    used = {name for name, p in encoder.named_parameters() if p.grad is not None and p.grad.any()}
    trained = {name for name, p in encoder.named_parameters() if p.requires_grad}
    assert used == trained
    assert not list(encoder.buffers())


def test_features() -> None:
    encoder = build().vit
    images = pixels(2, 3, 16)
    encoded = encoder(images)
    assert encoded.shape == (2, 17, 24)
    # After the final LayerNorm, whose scale is 1 and shift 0 in a new encoder.
    assert torch.allclose(encoded.mean(dim=2), torch.zeros(2, 17), atol=1e-5)
    assert torch.allclose(encoder.pool(encoded), encoded[:, 1:].mean(dim=1))
    assert torch.equal(encoder.pool(encoded, "cls"), encoded[:, 0])


def test_initial_weights() -> None:
    mae = build(vit=ViTParams(patch_size=4, embed_dim=128, depth=1, num_heads=2), decoder_dim=128)
    state = mae.state_dict()
    assert 0.015 < state["encoder.masked_vit.vit.cls_token"].std() < 0.025
    assert 0.015 < state["decoder.mask_token"].std() < 0.025
    for name, value in state.items():
        if name.endswith(".bias") and "patch_embed" not in name:
            assert not value.any(), name
        if "norm" in name and name.endswith(".weight"):
            assert (value == 1).all(), name
    for name in ("embed.weight", "predict.weight", "decoder.blocks.0.mlp.fc1.weight"):
        limit = math.sqrt(6 / sum(state[name].shape))  # Xavier's
        assert 0.98 * limit < state[name].abs().max() <= limit, name


def test_weight_decay_leaves_vectors_out() -> None:
    mae = build()
    decayed, plain = weight_decay_groups([mae, torch.nn.Linear(3, 2)], 0.05)
    assert decayed["weight_decay"] == 0.05
    assert plain["weight_decay"] == 0.0
    assert all(p.ndim > 1 for p in decayed["params"])
    assert all(p.ndim == 1 for p in plain["params"])
    trained = [p for p in mae.parameters() if p.requires_grad]
    both = [*decayed["params"], *plain["params"]]
    assert len(both) == len(trained) + 2
    assert {id(p) for p in trained} < {id(p) for p in both}
    # Tokens decay, as in the authors' code: they have three dimensions.
    assert any(p is mae.decoder.mask_token for p in decayed["params"])


def test_learning_rate_is_the_authors_schedule() -> None:
    peak, steps, warmup = 1e-3, 50, 8
    for step in range(steps):
        if step < warmup:
            expected = peak * step / warmup
        else:
            expected = peak * 0.5 * (1.0 + math.cos(math.pi * (step - warmup) / (steps - warmup)))
        assert learning_rate(step, steps, warmup, peak) == pytest.approx(expected, rel=1e-12)
    assert learning_rate(0, steps, warmup, peak) == 0
    assert learning_rate(warmup, steps, warmup, peak) == peak
    assert 0 < learning_rate(steps - 1, steps, warmup, peak) < 0.01 * peak
    assert learning_rate(0, steps, 0, peak) == peak


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"mask_ratio": 0.99}, "leaves 0 of 16 patches visible"),
        ({"decoder_dim": 18}, "decoder_dim 18 must be a multiple"),
        ({"decoder_heads": 3}, "decoder_dim 16 must be a multiple"),
    ],
)
def test_impossible_shapes_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(**params)


@pytest.mark.parametrize(
    ("vit", "message"),
    [
        ({"patch_size": 5}, "image_size 16 is not a multiple of backbone.patch_size 5"),
        ({"num_heads": 5}, "embed_dim 24 must be a multiple"),
    ],
)
def test_impossible_encoders_are_refused(vit: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(vit=VIT.model_copy(update=vit))
