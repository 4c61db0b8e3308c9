"""Fine-tuning of the whole encoder."""

from typing import Annotated, Any

from pydantic import Field
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.probes.transfer import TransferParams, TransferProbe


class FineTuningParams(TransferParams):
    """How everything is trained.

    Attributes:
        layer_decay: The rate of a layer over that of the one after it, as timm counts layers: the
            last block has the whole rate, and what is before the first block is one layer.
    """

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75


class FineTuning(TransferProbe):
    """Trains all parameters of a copy of the encoder, also those that an objective keeps fixed.

    He et al. (2022), Table 9: layer-wise decay of the rate, over the mean of places; without their
    mixup, cutmix, smoothing and random augmentation, which are made for single labels.
    """

    Params = FineTuningParams
    params: FineTuningParams

    def adapt(self, encoder: Encoder) -> nn.Module:
        """Return the encoder with its pooling."""
        return _Pooled(encoder.requires_grad_(True))

    def groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return groups whose rates fall from the last layer to the first."""
        assert isinstance(model, _Pooled)
        groups: list[dict[str, Any]] = param_groups_layer_decay(
            model.encoder.timm_model(),
            self.params.weight_decay,
            layer_decay=self.params.layer_decay,
        )
        return groups


class _Pooled(nn.Module):
    def __init__(self, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.pool(self.encoder(images))
