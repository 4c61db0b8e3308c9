"""Builds the encoder of a protocol's backbone."""

from torch import nn

from rscl_bench import registry
from rscl_bench.encoder_bands import EncoderBands
from rscl_bench.errors import SpecError
from rscl_bench.models.band_convolution import BandConvolution
from rscl_bench.models.encoder import Encoder
from rscl_bench.spec import Component, Pool


def build_encoder(
    backbone: Component,
    image_size: int,
    channels: int,
    probed_feature: Pool = "patches",
    bands: EncoderBands | None = None,
) -> Encoder:
    """Return a new encoder; its initial weights are drawn from torch's global generator.

    Args:
        backbone: Registered name and parameters.
        image_size: Side of the input in pixels.
        channels: Number of bands of the input.
        probed_feature: How probes pool the encoder's output.
        bands: The bands of the channels, where images differ in bands.

    Raises:
        SpecError: If the backbone is unknown, its parameters do not fit, it has no class token to
            pool by, or it takes no images that differ in bands.
    """
    encoder_class = registry.load("backbones", backbone.name)
    parameters = encoder_class.Params(**backbone.parameters)
    encoder: Encoder
    if bands is None:
        encoder = encoder_class(parameters, image_size, channels)
    else:
        if encoder_class.first_convolution is None:
            raise SpecError(
                f"Backbone '{registry.short_name('backbones', backbone.name)}' takes no images "
                "that differ in bands; set backbone.name = 'vit', 'swin' or 'resnet', or declare "
                "first_convolution in its class."
            )
        encoder = encoder_class(parameters, image_size, 1)
        with_bands(encoder, bands)
    encoder.check_pool(probed_feature, "probed_feature")
    encoder.probed_feature = probed_feature
    return encoder


def with_bands(encoder: Encoder, bands: EncoderBands) -> None:
    """Give an encoder of one band a first convolution for images that differ in bands."""
    assert encoder.first_convolution is not None
    replaced = encoder.get_submodule(encoder.first_convolution)
    assert isinstance(replaced, nn.Conv2d)
    encoder.set_submodule(encoder.first_convolution, BandConvolution(replaced, bands))
    encoder.bands, encoder.channels = bands, len(bands.bands)
