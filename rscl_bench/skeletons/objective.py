"""The objective skeleton."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.spec import Spec
from torch import Generator, Tensor, nn


class Parameters(Spec):
    """What a recipe and --set may change.

    Attributes:
        sigma: Deviation of the noise, where the deviation of pixels is 1.
    """

    sigma: Annotated[float, Field(gt=0)] = 0.5


class Skeleton(Objective):
    """Predicts the pixels at every location from a noisy copy of the image."""

    Params = Parameters

    def __init__(self, params: Parameters, encoder: Encoder):
        super().__init__(params, encoder)
        self.sigma = params.sigma
        self.stride = encoder.feature_stride  # pixels per location, in both directions
        self.predict = nn.Linear(encoder.feature_dim, encoder.channels * self.stride**2)

    def forward(self, views: Sequence[Tensor], generator: Generator) -> ObjectiveOutput:
        """Return the loss of a batch, and the encoder's output for each view."""
        (images,) = views  # [B, C, H, W]; an objective of two views has two tensors
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        encoded = self.encoder(images + self.sigma * noise)
        predicted = self.predict(self.encoder.locations(encoded))  # [B, N, C * stride²]
        pixels = F.pixel_unshuffle(images, self.stride).flatten(2).transpose(1, 2)
        return ObjectiveOutput(F.mse_loss(predicted.float(), pixels), (encoded,))
