"""Small encoders and masked objectives."""

from typing import Any

import pytest
import torch
from torch import Tensor

from helpers.backbones import SWIN
from rscl_bench import registry
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.resnet import ResNet, ResNetParams
from rscl_bench.models.swin import Swin, SwinParams
from rscl_bench.models.vit import ViT, ViTParams
from rscl_bench.objectives.masking import Masked
from rscl_bench.randomness import torch_generator
from rscl_bench.views.masks import enlarged


def encoder_of(kind: str, image_size: int = 16, bands: int = 3) -> Encoder:
    """Return a tiny encoder. ViT and Swin transformer have a feature stride of 4 pixels."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "vit":
            return ViT(
                ViTParams(patch_size=4, embed_dim=24, depth=2, num_heads=3), image_size, bands
            )
        if kind == "swin":
            shape = {name: value for name, value in SWIN.items() if name != "name"}
            return Swin(SwinParams(**shape), image_size, bands)
        return ResNet(ResNetParams(variant="resnet18"), image_size, bands)


def build(name: str, encoder: Encoder, **params: Any) -> Any:
    objective = registry.load("objectives", name)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return objective(objective.Params(**params), encoder)


def pixels(batch: int, bands: int = 3, size: int = 16, seed: int = 7) -> Tensor:
    return torch.randn(batch, bands, size, size, generator=torch.Generator().manual_seed(seed))


def hidden_pixels(objective: Masked, images: Tensor, seed: int) -> Tensor:
    """Return the pixels that one step hides from the encoder, ``[B, H, W]`` bool."""
    told: list[Tensor] = []
    encoder = objective.encoder
    masked = encoder.forward_masked

    def watch(images: Tensor, hidden: Tensor, token: Tensor) -> Tensor:
        told.append(hidden)
        return masked(images, hidden, token)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "forward_masked", watch)
        objective([images], torch_generator("cpu", seed))
    return enlarged(told[0], images.shape[-1])
