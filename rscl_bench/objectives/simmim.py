"""SimMIM (Xie et al. 2022, "SimMIM: A Simple Framework for Masked Image Modeling")."""

import math
from collections.abc import Sequence
from typing import Annotated

import torch
from lightly.models import utils
from pydantic import Field
from torch import Tensor

from rscl_bench.models.band_heads import (
    difference,
    mean_over_present,
    own_bands,
    predict_bands,
)
from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import ObjectiveOutput
from rscl_bench.objectives.masking import Masked, Ratio, check_mask_count, require_maskable
from rscl_bench.spec import Spec
from rscl_bench.views.masks import draw_singly, enlarged, mask_of, nearest_divisor
from rscl_bench.views.view import View


class SimMIMParams(Spec):
    """View and masking (Xie et al. 2022, Section 4.1).

    Attributes:
        view: How the view of an image is made.
        mask_ratio: Share of mask units that are hidden, rounded up to whole units.
        mask_unit: Side of a mask unit as a share of the image's side. The side is rounded to the
            nearest number of mask cells that tiles the image. The paper's is 32 of 224 pixels.
    """

    view: View = View(min_scale=0.67)
    mask_ratio: Ratio = 0.6
    mask_unit: Annotated[float, Field(gt=0, lt=1)] = 1 / 7


class SimMIM(Masked):
    """Predicts the pixels of hidden mask units with one linear layer (Section 3)."""

    Params = SimMIMParams

    def __init__(self, params: SimMIMParams, encoder: Encoder):
        encoder = require_maskable(encoder, "simmim")
        super().__init__(params, encoder, params.view, encoder.feature_stride**2, by_band=True)
        self.params = params

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the mean absolute error over hidden pixels; see `Objective.forward`."""
        (images,) = views
        hidden = self.draw(len(images), images.shape[-1], generator)
        encoded = self.encode(images, hidden)
        predicted = self.reconstruct(encoded, images).float()
        pixels = enlarged(hidden, images.shape[-1])[:, None]
        if self.encoder.bands is None:
            error = (predicted - images).abs().where(pixels, 0.0)
            loss = error.sum() / (pixels.sum() * images.shape[1])
        else:
            target = own_bands(self.encoder, images).where(pixels, torch.nan)
            loss = mean_over_present(difference(predicted, target).abs(), target)
        return ObjectiveOutput(loss, (encoded,))

    def draw(self, count: int, image_size: int, generator: torch.Generator) -> Tensor:
        """Return the hidden mask units of each image, ``[B, n, n]`` bool.

        Args:
            count: Number B of images.
            image_size: Side of an image in pixels.
            generator: Source of randomness.

        Raises:
            SpecError: If all mask units would be hidden.
        """
        cells = image_size // self.encoder.mask_stride
        side = cells // nearest_divisor(cells, self.params.mask_unit * cells)
        hidden = math.ceil(self.params.mask_ratio * side**2)
        check_mask_count(hidden, side**2, "mask units")
        return mask_of(draw_singly(count, side**2, hidden, generator), side)

    def reconstruct(self, encoded: Tensor, images: Tensor) -> Tensor:
        """Predict the pixels of every location, and assemble them to images.

        Args:
            encoded: The encoded images.
            images: The images ``[B, C, H, W]``, whose bands are predicted.

        Returns:
            ``[B, C, H, W]``; where images differ in bands, C are the bands of the batch.
        """
        pixels = predict_bands(self.predict, self.encoder.locations(encoded), images)
        stride = self.encoder.feature_stride
        predicted: Tensor = utils.unpatchify(pixels, stride, pixels.shape[-1] // stride**2)
        return predicted
