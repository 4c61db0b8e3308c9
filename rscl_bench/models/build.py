"""Builds the encoder of a protocol's backbone."""

from rscl_bench import registry
from rscl_bench.models.encoder import Encoder
from rscl_bench.spec import Component, Pool


def build_encoder(
    backbone: Component, image_size: int, channels: int, probed_feature: Pool = "patches"
) -> Encoder:
    """Return a new encoder; its initial weights are drawn from torch's global generator.

    Args:
        backbone: Registered name and parameters.
        image_size: Side of the input in pixels.
        channels: Number of bands of the input.
        probed_feature: How probes pool the encoder's output.

    Raises:
        SpecError: If the backbone is unknown, its parameters do not fit, or it has no class token
            to pool by.
    """
    encoder_class = registry.load("backbones", backbone.name)
    encoder: Encoder = encoder_class(
        encoder_class.Params(**backbone.parameters), image_size, channels
    )
    encoder.check_pool(probed_feature, "probed_feature")
    encoder.probed_feature = probed_feature
    return encoder
