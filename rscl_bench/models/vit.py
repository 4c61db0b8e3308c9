"""Vision transformer that can leave patches out, built from timm's and lightly's modules."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated, cast

import torch
from lightly.models import utils
from lightly.models.modules import MaskedVisionTransformerTIMM
from pydantic import Field
from timm.layers import PatchEmbed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.attention import attention
from rscl_bench.models.encoder import MaskableEncoder
from rscl_bench.spec import Depth, Pool, Positive, Spec


class ViTParams(Spec):
    """Shape of a ViT (Dosovitskiy et al. 2021, Table 1). The defaults are ViT-B/16.

    Attributes:
        patch_size: Side of a patch in pixels.
        embed_dim: Width D.
        depth: Number of transformer blocks.
        num_heads: Number of attention heads per block.
        mlp_ratio: Hidden width of a block's MLP over D.
    """

    patch_size: Positive = 16
    embed_dim: Positive = 768
    depth: Depth = 12
    num_heads: Positive = 12
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0


class ViT(MaskableEncoder):
    """ViT of masked autoencoders (He et al. 2022, Appendix A).

    The ViT has a class token, LayerNorm with epsilon 1e-6 and lightly's MAE initialisation. Fixed
    sin-cos positions are added before patches are left out.

    Attributes:
        patch_size: Side of a patch in pixels.
        num_patches: Number N of patches of an image.
        params: The transformer's shape.
        image_size: Side of the input in pixels.
    """

    Params = ViTParams
    pools = ("patches", "cls")
    first_convolution = "masked_vit.vit.patch_embed.proj"

    def __init__(self, params: ViTParams, image_size: int, channels: int):
        """Build the encoder.

        Args:
            params: The transformer's shape.
            image_size: Side of the input in pixels.
            channels: Bands C of the input.

        Raises:
            SpecError: If patches do not tile the image, or heads do not divide the width.
        """
        super().__init__()
        self.params, self.image_size = params, image_size
        if image_size % params.patch_size:
            raise SpecError(
                f"image_size {image_size} is not a multiple of backbone.patch_size "
                f"{params.patch_size}."
            )
        if params.embed_dim % (2 * params.num_heads) or params.embed_dim % 4:
            raise SpecError(
                f"backbone.embed_dim {params.embed_dim} must be a multiple of 4 and of twice "
                f"num_heads ({params.num_heads})."
            )
        vit = VisionTransformer(
            img_size=image_size,
            patch_size=params.patch_size,
            in_chans=channels,
            num_classes=0,
            global_pool="token",  # "avg" would turn the final norm into an identity
            embed_dim=params.embed_dim,
            depth=params.depth,
            num_heads=params.num_heads,
            mlp_ratio=params.mlp_ratio,
            norm_layer=partial(nn.LayerNorm, eps=1e-6),
            dynamic_img_size=True,  # smaller crops resample the positions
        )
        masked = MaskedVisionTransformerTIMM(vit)
        # lightly's own mask token is unused here: weight decay would only shrink it.
        masked.mask_token = None
        self.masked_vit = masked
        self.patch_size = self.multiple = self.mask_stride = self.feature_stride = params.patch_size
        self.channels = channels
        self.num_patches: int = vit.patch_embed.num_patches
        self.feature_dim = self.token_dim = params.embed_dim

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Encode images, or only some of their patches.

        Args:
            images: ``[B, C, H, W]``.
            keep: Indices of the tokens to encode, ``[B, K]`` int64. Index 0 is the class token;
                patches count from 1. None encodes all tokens.

        Returns:
            Tokens after the final LayerNorm, class token first: ``[B, 1 + N, D]`` or ``[B, K, D]``.
        """
        tokens = 1 + self._count_patches(images) if keep is None else keep.shape[1]
        with attention(images.device, tokens):
            encoded: Tensor = self.masked_vit.encode(images, idx_keep=keep)
        return encoded

    def forward_masked(self, images: Tensor, hidden: Tensor, token: Tensor) -> Tensor:
        """Encode images with a mask token in place of the embedding of every hidden patch.

        Positions are added to the embeddings afterwards.
        """
        patches = self.masked_vit.images_to_tokens(images)
        token = token.to(patches.dtype)
        return self._encode(torch.where(hidden.flatten(1)[..., None], token, patches))

    def forward_with_mask_token_added(
        self, images: Tensor, hidden: Tensor, token: Tensor
    ) -> Tensor:
        """Encode images and add a mask token to the embedding of every hidden patch.

        Positions are added to the embeddings afterwards.
        """
        patches = self.masked_vit.images_to_tokens(images)
        return self._encode(patches + hidden.flatten(1)[..., None] * token)

    def forward_blocks(
        self, images: Tensor, keep: Tensor | None = None, token: Tensor | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Encode images and return the output of every block.

        Args:
            images: ``[B, C, H, W]``.
            keep: Indices of the tokens to encode, as in ``forward``.
            token: Replacement for the class token, ``[1, 1, D]``. None uses the encoder's own.

        Returns:
            The output of ``forward``, and a list: the tokens before the first block, then the
            output of every block.
        """
        vit = self.masked_vit.vit
        patches = self.masked_vit.images_to_tokens(images)
        class_token = self.cls_token if token is None else token
        class_tokens = class_token.expand(len(patches), -1, -1)
        tokens = self.masked_vit.add_pos_embed(torch.cat([class_tokens, patches], dim=1))
        if keep is not None:
            tokens = utils.get_at_index(tokens, keep)
        states = [vit.norm_pre(tokens)]
        with attention(images.device, states[0].shape[1]):
            for block in self.blocks:
                states.append(block(states[-1]))
        return vit.norm(states[-1]), states

    def _encode(self, patches: Tensor) -> Tensor:
        """Encode embedded patches ``[B, N, D]`` to all tokens after the final LayerNorm."""
        vit = self.masked_vit.vit
        with attention(patches.device, 1 + patches.shape[1]):
            tokens = self.masked_vit.add_pos_embed(self.masked_vit.prepend_prefix_tokens(patches))
            encoded: Tensor = vit.norm(vit.blocks(vit.norm_pre(tokens)))
        return encoded

    def pool(self, encoded: Tensor, how: Pool = "patches") -> Tensor:
        """Return the mean patch token ("patches") or the class token ("cls"), ``[B, D]``."""
        return encoded[:, 0] if how == "cls" else encoded[:, 1:].mean(dim=1)

    def grid(self, encoded: Tensor) -> Tensor:
        """Return the patch tokens of square images as a feature map, ``[B, D, h, w]``."""
        patches = encoded[:, 1:]
        side = math.isqrt(patches.shape[1])
        return patches.transpose(1, 2).reshape(len(patches), -1, side, side)

    def timm_model(self) -> nn.Module:
        """Return timm's ViT."""
        model: nn.Module = self.masked_vit.vit
        return model

    def pooling_timm_model(self) -> nn.Module:
        """Return timm's ViT, set so that its output is the probed feature."""
        vit = self.masked_vit.vit
        vit.global_pool = {"patches": "avg", "cls": "token"}[self.probed_feature]
        model: nn.Module = vit
        return model

    @property
    def patch_embed(self) -> PatchEmbed:
        """The patch embedding."""
        return cast("PatchEmbed", self.masked_vit.vit.patch_embed)

    @property
    def cls_token(self) -> nn.Parameter:
        """The class token, ``[1, 1, D]``."""
        return cast("nn.Parameter", self.masked_vit.vit.cls_token)

    @property
    def pos_embed(self) -> nn.Parameter:
        """The fixed positions of all tokens, ``[1, 1 + N, D]``."""
        return cast("nn.Parameter", self.masked_vit.vit.pos_embed)

    @property
    def blocks(self) -> Sequence[Block]:
        """The transformer blocks."""
        return cast("Sequence[Block]", self.masked_vit.vit.blocks)

    def _count_patches(self, images: Tensor) -> int:
        return images.shape[2] * images.shape[3] // self.patch_size**2
