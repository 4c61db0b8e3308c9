"""Masked autoencoder (He et al. 2022, "Masked Autoencoders Are Scalable Vision Learners")."""

from collections.abc import Sequence
from typing import Annotated, cast

import torch
from lightly.models import utils
from lightly.models.modules import MaskedVisionTransformerDecoderTIMM
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.attention import attention
from rscl_bench.models.band_heads import (
    difference,
    mean_over_present,
    own_bands,
    pixel_head,
    predict_bands,
    standardised,
)
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.vit import ViT
from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.spec import Depth, Positive, Spec


class MAEParams(Spec):
    """Masking and decoder (He et al. 2022, Section 3). The decoder's defaults are the paper's.

    Attributes:
        mask_ratio: Share of patches that are hidden from the encoder.
        norm_pix: Whether each target patch is standardised by its mean and standard deviation.
        decoder_dim: Width d of the decoder.
        decoder_depth: Number of decoder blocks.
        decoder_heads: Number of attention heads of each decoder block.
    """

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    norm_pix: bool = False
    decoder_dim: Positive = 512
    decoder_depth: Depth = 8
    decoder_heads: Positive = 16


class MAE(Objective):
    """Reconstructs the pixels of hidden patches from the visible patches."""

    Params = MAEParams
    per_image_loss = True
    stateless_loss = True

    def __init__(self, params: MAEParams, encoder: Encoder):
        """Build the decoder for an encoder.

        Args:
            params: Masking and decoder.
            encoder: A ViT.

        Raises:
            SpecError: If the encoder cannot leave patches out, if no patch would be visible or
                hidden, or if the widths do not fit.
        """
        super().__init__(params, encoder)
        if not isinstance(encoder, ViT):
            raise SpecError(
                f"Objective '{type(self).__name__.lower()}' needs an encoder that can leave "
                f"patches out, which {type(encoder).__name__} cannot; set backbone.name = 'vit'."
            )
        self.params = params
        self.visible = int(encoder.num_patches * (1 - params.mask_ratio))
        if not 0 < self.visible < encoder.num_patches:
            raise SpecError(
                f"mask_ratio {params.mask_ratio} leaves {self.visible} of {encoder.num_patches} "
                "patches visible; at least one must be visible and one hidden."
            )
        if params.decoder_dim % (2 * params.decoder_heads) or params.decoder_dim % 4:
            raise SpecError(
                f"decoder_dim {params.decoder_dim} must be a multiple of 4 and of twice "
                f"decoder_heads ({params.decoder_heads})."
            )
        self.embed = nn.Linear(encoder.feature_dim, params.decoder_dim)
        self.decoder = MaskedVisionTransformerDecoderTIMM(
            num_patches=encoder.num_patches,
            embed_dim=params.decoder_dim,
            depth=params.decoder_depth,
            num_heads=params.decoder_heads,
        )
        width, pixels = params.decoder_dim, encoder.patch_size**2
        self.predict = pixel_head(encoder, width, pixels, (2 / (width + pixels)) ** 0.5)
        for layer in (self.embed, self.predict):
            if isinstance(layer, nn.Linear):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)

    @property
    def vit(self) -> ViT:
        """The encoder, typed as a ViT."""
        return cast("ViT", self.encoder)

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the reconstruction loss for one view per image; see `Objective.forward`."""
        (images,) = views
        keep, hidden = self.draw(images, generator)
        encoded = self.vit(images, keep)
        loss = self.reconstruction(encoded, keep, hidden, images)
        return ObjectiveOutput(loss, (encoded,))

    def reconstruction(
        self, encoded: Tensor, keep: Tensor, hidden: Tensor, images: Tensor
    ) -> Tensor:
        """Return the mean squared error over hidden patches, a scalar; arguments as in `decode`."""
        predicted = self.decode(encoded, keep, hidden, images).float()
        target = self.targets(images, hidden)
        if self.vit.bands is None:
            return (predicted - target).square().mean(dim=-1).mean()
        return mean_over_present(difference(predicted, target).square(), target)

    def draw(self, images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Draw the visible and the hidden tokens of images ``[B, C, H, W]``; see `split_tokens`."""
        shape = len(images), self.vit.num_patches
        return self.split_tokens(torch.rand(shape, generator=generator, device=images.device))

    def split_tokens(self, noise: Tensor) -> tuple[Tensor, Tensor]:
        """Split tokens by noise: the V patches of lowest noise are visible (Section 3, "Masking").

        Args:
            noise: One value per patch, ``[B, N]``.

        Returns:
            Indices of the visible tokens, ``[B, 1 + V]`` int64, and of the hidden tokens,
            ``[B, N - V]`` int64. The class token has index 0 and comes first; patches count from 1.
        """
        order = noise.argsort(dim=1, stable=True) + 1
        keep = torch.cat([torch.zeros_like(order[:, :1]), order[:, : self.visible]], dim=1)
        return keep, order[:, self.visible :]

    def decode(self, encoded: Tensor, keep: Tensor, hidden: Tensor, images: Tensor) -> Tensor:
        """Predict the pixels of hidden patches.

        Args:
            encoded: Visible tokens, ``[B, 1 + V, D]``.
            keep: Indices of the visible tokens, ``[B, 1 + V]``.
            hidden: Indices of the hidden tokens, ``[B, N - V]``.
            images: The images ``[B, C, H, W]``, whose bands are predicted.

        Returns:
            ``[B, N - V, p * p * C]``; where images differ in bands, C are the bands of the batch.
        """
        tokens = self.embed(encoded)
        batch, length = len(encoded), self.decoder.sequence_length
        full = utils.repeat_token(self.decoder.mask_token, (batch, length)).type_as(tokens)
        full = utils.set_at_index(full, keep, tokens)
        with attention(tokens.device, length):
            decoded = self.decoder.decode(self.decoder.add_pos_embed(full))
        return predict_bands(self.predict, utils.get_at_index(decoded, hidden), images)

    def targets(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Return the pixels of hidden patches, ``[B, N - V, p * p * C]`` float32.

        Where images differ in bands, C are the bands of the batch, NaN where an image lacks them,
        and ``norm_pix`` standardises a patch over the bands of its image.
        """
        patches = utils.patchify(own_bands(self.vit, images), self.vit.patch_size)
        target = utils.get_at_index(patches, hidden - 1)
        if self.params.norm_pix and self.vit.bands is not None:
            target = standardised(target, 1e-6)
        elif self.params.norm_pix:
            mean = target.mean(dim=-1, keepdim=True)
            variance = target.var(dim=-1, keepdim=True)
            target = (target - mean) / (variance + 1e-6).sqrt()
        return cast("Tensor", target)
