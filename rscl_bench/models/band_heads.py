"""Prediction of the pixels of an image, or of values of its pixels, in the bands that it has."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rscl_bench.encoder_bands import EncoderBands
from rscl_bench.models.band_convolution import shown_bands
from rscl_bench.models.band_weights import band_weights
from rscl_bench.models.encoder import Encoder


class BandHead(nn.Module):
    """A linear layer with weights for each band, made as the kernels of the encoder are.

    All bands share a bias: pixels are standardised for each band.
    """

    def __init__(self, width: int, outputs: int, bands: EncoderBands, deviation: float):
        """Draw the weights.

        Args:
            width: Width D of the features.
            outputs: Outputs for each band.
            bands: The bands of the encoder's channels.
            deviation: Standard deviation of the initial weights.
        """
        super().__init__()
        self.weights = band_weights(bands, (outputs, width), deviation)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor, channels: tuple[int, ...]) -> Tensor:
        """Predict the bands of some channels from features ``[..., D]``.

        Returns:
            ``[..., n, outputs]``.
        """
        weights = self.weights(channels)
        predicted = F.linear(features, weights.flatten(0, 1), self.bias.repeat(len(channels)))
        return predicted.reshape(*features.shape[:-1], *weights.shape[:2])


def pixel_head(encoder: Encoder, width: int, outputs: int, deviation: float) -> nn.Module:
    """Return a head that predicts values of every band; `predict_bands` calls it.

    Args:
        encoder: The encoder, for its bands.
        width: Width D of the features.
        outputs: Outputs for each band.
        deviation: Standard deviation of the initial weights of a `BandHead`. An ordinary head is
            left as torch draws it.
    """
    if encoder.bands is None:
        return nn.Linear(width, outputs * encoder.channels)
    return BandHead(width, outputs, encoder.bands, deviation)


def predict_bands(head: nn.Module, features: Tensor, images: Tensor) -> Tensor:
    """Predict the bands that any of the images has; the values of a band are not neighbours.

    Args:
        head: From `pixel_head`.
        features: ``[..., D]``.
        images: The images ``[B, U, H, W]``, whose bands are predicted.

    Returns:
        ``[..., outputs * n]``: the first output of all n bands, then the second.
    """
    if isinstance(head, BandHead):
        by_band: Tensor = head(features, shown_bands(images, head.weights.bands).channels)
        return by_band.transpose(-1, -2).flatten(-2)
    return cast("Tensor", head(features))


def own_bands(encoder: Encoder, images: Tensor) -> Tensor:
    """Return the bands of images ``[B, U, H, W]`` that any image has, ``[B, n, H, W]``.

    A band is NaN where an image lacks it. For an encoder of equal bands these are the images.
    """
    return images if encoder.bands is None else shown_bands(images, encoder.bands).images


def mean_over_present(errors: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over images of each image's mean error in the bands that it has.

    Args:
        errors: ``[B, ...]``, finite; see `difference`.
        targets: Same shape; NaN in bands that an image lacks.
    """
    known = ~targets.isnan()
    dims = tuple(range(1, errors.ndim))
    sums = errors.where(known, 0.0).sum(dim=dims)
    return (sums / known.sum(dim=dims)).mean()


def difference(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return ``predicted - targets``, and 0 where a target is NaN, without gradient there."""
    return (predicted - targets).where(~targets.isnan(), 0.0)


def standardised(targets: Tensor, epsilon: float) -> Tensor:
    """Return targets ``[..., P]`` less their mean, over their deviation, without NaN values.

    The variance is the unbiased one. NaN stays NaN.
    """
    known = ~targets.isnan()
    count = known.sum(dim=-1, keepdim=True)
    filled = targets.where(known, 0.0)
    centred = targets - filled.sum(dim=-1, keepdim=True) / count
    squares = centred.where(known, 0.0).square().sum(dim=-1, keepdim=True)
    return centred / (squares / (count - 1) + epsilon).sqrt()
