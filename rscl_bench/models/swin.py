"""Swin transformer, from timm."""

from typing import Annotated

import torch
from pydantic import Field, model_validator
from timm.models.swin_transformer import SwinTransformer
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import MaskableEncoder
from rscl_bench.spec import Depth, Positive, Spec


class SwinParams(Spec):
    """Shape of a Swin transformer (Liu et al. 2021, Section 3.3). The defaults are Swin-T.

    Attributes:
        patch_size: Side of a patch in pixels.
        embed_dim: Width of the first stage. Every further stage doubles the width.
        depths: Number of blocks of each stage.
        num_heads: Number of attention heads of each stage.
        window_size: Side of a window in patches.
        mlp_ratio: Hidden width of a block's MLP over its width.
    """

    patch_size: Positive = 4
    embed_dim: Positive = 96
    depths: Annotated[tuple[Depth, ...], Field(min_length=1)] = (2, 2, 6, 2)
    num_heads: Annotated[tuple[Positive, ...], Field(min_length=1)] = (3, 6, 12, 24)
    window_size: Positive = 7
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0

    @model_validator(mode="after")
    def _stages_agree(self) -> "SwinParams":
        if len(self.depths) != len(self.num_heads):
            raise ValueError("depths and num_heads must both have one number per stage")
        return self


class Swin(MaskableEncoder):
    """Swin without its classifier; features are those of the last stage, after its LayerNorm.

    A mask cell is a patch of the first stage. A mask token replaces the embedding of a hidden
    patch. There is no class token. There is no stochastic depth, because its random draws would not
    come from the run's keyed generators.
    """

    Params = SwinParams
    first_convolution = "network.patch_embed.proj"

    def __init__(self, params: SwinParams, image_size: int, channels: int):
        """Build the encoder.

        Args:
            params: The transformer's shape.
            image_size: Side of the input in pixels.
            channels: Bands C of the input.

        Raises:
            SpecError: If ``image_size`` is not a multiple of ``feature_stride``, or the heads of a
                stage do not divide its width.
        """
        super().__init__()
        self.multiple = self.feature_stride = params.patch_size * 2 ** (len(params.depths) - 1)
        self.channels = channels
        if image_size % self.multiple:
            raise SpecError(
                f"image_size {image_size} is not a multiple of {self.multiple}, the side of a "
                "patch of the last stage."
            )
        for stage, heads in enumerate(params.num_heads):
            if params.embed_dim * 2**stage % heads:
                raise SpecError(
                    f"{heads} backbone.num_heads do not divide the width of stage {stage + 1}, "
                    f"{params.embed_dim * 2**stage}."
                )
        self.network = SwinTransformer(
            img_size=image_size,
            patch_size=params.patch_size,
            in_chans=channels,
            num_classes=0,
            embed_dim=params.embed_dim,
            depths=params.depths,
            num_heads=params.num_heads,
            window_size=params.window_size,
            mlp_ratio=params.mlp_ratio,
            drop_path_rate=0.0,
            strict_img_size=False,
        )
        self.mask_stride = params.patch_size
        self.token_dim = params.embed_dim
        self.feature_dim: int = self.network.num_features

    def forward(self, images: Tensor) -> Tensor:
        """Encode images ``[B, C, H, W]`` as maps ``[B, h, w, D]`` after the final LayerNorm."""
        encoded: Tensor = self.network.forward_features(images)
        return encoded

    def forward_masked(self, images: Tensor, hidden: Tensor, token: Tensor) -> Tensor:
        """Encode images with a mask token in place of the embedding of every hidden patch."""
        patches = self.network.patch_embed(images)
        return self._encode(torch.where(hidden[..., None], token.to(patches.dtype), patches))

    def forward_with_mask_token_added(
        self, images: Tensor, hidden: Tensor, token: Tensor
    ) -> Tensor:
        """Encode images and add a mask token to the embedding of every hidden patch."""
        return self._encode(self.network.patch_embed(images) + hidden[..., None] * token)

    def _encode(self, patches: Tensor) -> Tensor:
        encoded: Tensor = self.network.norm(self.network.layers(patches))
        return encoded

    def grid(self, encoded: Tensor) -> Tensor:
        """Return the feature map ``[B, D, h, w]``, channels first."""
        return encoded.permute(0, 3, 1, 2)

    def timm_model(self) -> nn.Module:
        """Return timm's Swin transformer."""
        model: nn.Module = self.network
        return model
