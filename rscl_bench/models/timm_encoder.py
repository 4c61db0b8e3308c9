"""Any model of timm as an encoder that can be probed."""

from typing import Any

import timm
from torch import Tensor, nn

from rscl_bench.errors import SpecError, unknown
from rscl_bench.models.encoder import Encoder
from rscl_bench.spec import Pool


class TimmEncoder(Encoder):
    """A model of timm, pooled as the model pools before its classifier.

    It serves probes, which read one feature per image. Objectives, which read locations and mask
    tokens, cannot train it.

    Attributes:
        model: The model, without its classifier.
    """

    def __init__(self, name: str, image_size: int, channels: int):
        """Build the model with random weights.

        Args:
            name: Name of the model in timm, such as ``vit_small_patch16_224``.
            image_size: Side of the input in pixels.
            channels: Bands C of the input.

        Raises:
            SpecError: If timm has no such model, or it does not take such images.
        """
        super().__init__()
        if not timm.is_model(name.partition(".")[0]):
            raise unknown("model of timm", name, timm.list_models())
        self.model = _created(name, image_size, channels)
        self.feature_dim: int = self.model.num_features
        self.channels = channels
        self.multiple = 1

    def forward(self, images: Tensor) -> Tensor:
        """Return the model's features before pooling."""
        encoded: Tensor = self.model.forward_features(images)
        return encoded

    def pool(self, encoded: Tensor, how: Pool = "patches") -> Tensor:
        """Return one feature per image, ``[B, D]``, pooled as the model does."""
        pooled: Tensor = self.model.forward_head(encoded, pre_logits=True)
        return pooled

    def grid(self, encoded: Tensor) -> Tensor:
        """Refuse: where timm's models have their locations differs from model to model."""
        raise SpecError("A model of timm can be probed, but no objective can train it.")

    def forward_with_mask_token_added(
        self, images: Tensor, hidden: Tensor, token: Tensor
    ) -> Tensor:
        """Refuse: the stem differs from model to model."""
        raise SpecError("A model of timm can be probed, but no objective can train it.")

    def timm_model(self) -> nn.Module:
        """Return the model."""
        model: nn.Module = self.model
        return model


def _created(name: str, image_size: int, channels: int) -> Any:
    given = {"pretrained": False, "num_classes": 0, "in_chans": channels}
    try:
        try:
            return timm.create_model(name, img_size=image_size, **given)
        except TypeError:  # a network without a fixed size, such as a ResNet
            return timm.create_model(name, **given)
    except (AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise SpecError(
            f"timm cannot build '{name}' for {channels} bands of {image_size} pixels "
            f"({str(error)[:200]}); choose another image size with --set image_size=N."
        ) from error
