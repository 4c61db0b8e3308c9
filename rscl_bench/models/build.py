"""From a protocol's backbone to an encoder."""

from collections.abc import Mapping
from typing import Any

from rscl_bench import registry
from rscl_bench.models.encoder import Encoder
from rscl_bench.spec import Component


def build_encoder(backbone: Mapping[str, Any], image_size: int, channels: int) -> Encoder:
    """Return a new encoder; its initial weights are drawn from torch's global generator.

    Args:
        backbone: Registered name (``name``) and parameters.
        image_size: Side of the input in pixels.
        channels: Number of bands of the input.

    Raises:
        SpecError: If the backbone is unknown or its parameters do not fit.
    """
    component = Component.model_validate(backbone)
    encoder_class = registry.load("backbones", component.name)
    encoder: Encoder = encoder_class(
        encoder_class.Params(**component.parameters), image_size, channels
    )
    return encoder
