"""Vision transformer that can leave patches out, from timm's and lightly's parts."""

from functools import partial
from typing import Annotated

from lightly.models.modules import MaskedVisionTransformerTIMM
from pydantic import Field
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.attention import attention
from rscl_bench.models.encoder import Encoder, Pool
from rscl_bench.spec import Positive, Spec


class ViTParams(Spec):
    """Shape of a ViT (Dosovitskiy et al. 2021, Table 1); the defaults are ViT-B/16.

    Attributes:
        patch_size: Side of a patch in pixels.
        embed_dim: Width D.
        depth: Transformer blocks.
        num_heads: Attention heads per block.
        mlp_ratio: Hidden width of a block's MLP over D.
    """

    patch_size: Positive = 16
    embed_dim: Positive = 768
    depth: Positive = 12
    num_heads: Positive = 12
    mlp_ratio: Annotated[float, Field(gt=0)] = 4.0


class ViT(Encoder):
    """ViT as masked autoencoders use it (He et al. 2022, Appendix A).

    A class token, fixed sin-cos positions added before any patch is left out, LayerNorm with
    epsilon 1e-6, and lightly's MAE initialisation.

    Attributes:
        patch_size: Side of a patch in pixels.
        num_patches: Patches N of an image.
    """

    Params = ViTParams

    def __init__(self, params: ViTParams, image_size: int, channels: int):
        """Build the encoder.

        Args:
            params: The transformer's shape.
            image_size: Side of the input in pixels.
            channels: Bands C of the input.

        Raises:
            SpecError: If patches do not tile the image or heads do not divide the width.
        """
        super().__init__()
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
        )
        masked = MaskedVisionTransformerTIMM(vit)
        # Masking here leaves tokens out; a mask token that nothing uses would only decay.
        masked.mask_token = None
        self.masked_vit = masked
        self.patch_size = params.patch_size
        self.num_patches: int = vit.patch_embed.num_patches
        self.feature_dim = params.embed_dim

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        """Encode images, or only some of their patches.

        Args:
            images: ``[B, C, H, W]``.
            keep: Token indices to encode, ``[B, K]`` int64, where 0 is the class token and
                patches count from 1; all if None.

        Returns:
            Tokens after the final LayerNorm, class token first: ``[B, 1 + N, D]`` or ``[B, K, D]``.
        """
        tokens = 1 + self.num_patches if keep is None else keep.shape[1]
        with attention(images.device, tokens):
            encoded: Tensor = self.masked_vit.encode(images, idx_keep=keep)
        return encoded

    def pool(self, encoded: Tensor, how: Pool = "patches") -> Tensor:
        """Return the mean patch token, or the class token: ``[B, D]``."""
        return encoded[:, 0] if how == "cls" else encoded[:, 1:].mean(dim=1)
