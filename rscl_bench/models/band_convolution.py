"""The first convolution of an encoder whose images differ in bands.

Images are ``[B, U, H, W]``, with one channel for each band of the stream; see
`rscl_bench.encoder_bands`. A band that an image lacks is NaN. Absent is not zero: whatever forgets
that a band may be absent gets NaN, which the trainer and the probes refuse.
"""

from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rscl_bench.encoder_bands import EncoderBands
from rscl_bench.models.band_weights import band_weights

Pair = tuple[int, int]


class ShownBands(NamedTuple):
    """The bands of a batch that any of its images has.

    Attributes:
        channels: Their channels, in the order of `EncoderBands.order`.
        images: These channels, ``[B, n, H, W]``; NaN where an image lacks a band.
        present: Whether an image has a band, ``[B, n]`` bool.
        mixed: Whether an image lacks a band that another has.
    """

    channels: tuple[int, ...]
    images: Tensor
    present: Tensor
    mixed: bool


def shown_bands(images: Tensor, bands: EncoderBands) -> ShownBands:
    """Return the bands of images ``[B, U, H, W]`` that any image has.

    A band counts as absent if its first pixel is NaN.
    """
    present = ~images[:, :, 0, 0].isnan()
    counts = present.sum(dim=0).tolist()
    channels = tuple(channel for channel in bands.order if counts[channel])
    if channels != tuple(range(len(counts))):
        images, present = images[:, channels], present[:, channels]
    mixed = any(counts[channel] < len(images) for channel in channels)
    return ShownBands(channels, images, present, mixed)


class BandConvolution(nn.Module):
    """Sums the responses of a kernel for each band, over the bands that an image has.

    With n the number of these bands, the output is ``bias + Σ_bands kernel * image / n^p``. The
    power keeps the size of the output equal for any number of bands when training starts, so that
    tokens of 12 bands are as large as tokens of one, relative to the positions that an encoder
    adds. Kernels of ``union`` start independent, so their responses add as √n: p = 1/2. Kernels of
    ``spectral`` start alike, and so do the bands of an image, so their responses add as n: p = 1.

    Only the kernels of bands that any image of the batch has are computed with, so bands that a
    later task adds do not change a bit of the earlier tasks.
    """

    def __init__(self, replaced: nn.Conv2d, bands: EncoderBands):
        """Make kernels that begin as large as those of the replaced convolution.

        Args:
            replaced: The convolution of an encoder of one band.
            bands: The bands of the encoder's channels.
        """
        super().__init__()
        shape = (replaced.out_channels, *replaced.kernel_size)
        self.kernels = band_weights(bands, shape, float(replaced.weight.detach().std()))
        bias = replaced.bias
        self.bias = None if bias is None else nn.Parameter(torch.zeros_like(bias.detach()))
        self.kernel_size = cast("Pair", replaced.kernel_size)
        self.power = {"union": 0.5, "spectral": 1.0}[bands.mode]
        self.stride = cast("Pair", replaced.stride)
        self.padding = cast("Pair", replaced.padding)

    def forward(self, images: Tensor) -> Tensor:
        """Return the responses ``[B, D, h, w]`` to images ``[B, U, H, W]``."""
        shown = shown_bands(images, self.kernels.bands)
        pixels = shown.images
        if shown.mixed:
            pixels = pixels.where(shown.present[:, :, None, None], 0.0)
        kernels = self.kernels(shown.channels).transpose(0, 1)
        response = F.conv2d(pixels, kernels, None, self.stride, self.padding)
        scale = shown.present.sum(dim=1).float().pow(-self.power)[:, None, None, None]
        response = response * scale.to(response.dtype)
        if self.bias is None:
            return response
        return response + self.bias.to(response.dtype)[:, None, None]

    @torch.no_grad()
    def of_bands(self, channels: tuple[int, ...]) -> nn.Conv2d:
        """Return an ordinary convolution for images that have the bands of these channels alone."""
        kernels = self.kernels(channels).transpose(0, 1) / len(channels) ** self.power
        plain = nn.Conv2d(
            len(channels),
            len(kernels),
            self.kernel_size,
            self.stride,
            self.padding,
            bias=self.bias is not None,
        )
        plain.weight.copy_(kernels)
        if self.bias is not None and plain.bias is not None:
            plain.bias.copy_(self.bias)
        return plain.to(kernels.device)
