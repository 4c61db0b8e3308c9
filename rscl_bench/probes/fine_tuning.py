"""Fine-tuning of the whole encoder."""

from typing import Annotated, Any

from pydantic import Field
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.probes.transfer import TransferParams, TransferProbe


class FineTuningParams(TransferParams):
    """How encoder and classifier are trained.

    Attributes:
        layer_decay: Learning rate of a layer divided by the learning rate of the next layer. timm
            numbers the layers: the last block has the full rate, and all parameters before the
            first block are one layer.
    """

    layer_decay: Annotated[float, Field(gt=0, le=1)] = 0.75


class FineTuning(TransferProbe):
    """A probe that trains all parameters of a copy of the encoder.

    Parameters that an objective keeps fixed are trained too. He et al. (2022), Table 9: layer-wise
    decay of the learning rate, on mean-pooled features (or the class
    token, if ``probed_feature`` is "cls"). Mixup, cutmix, label smoothing and random
    augmentation are left out, because they are made for single labels.
    """

    Params = FineTuningParams
    params: FineTuningParams

    def adapt(self, encoder: Encoder) -> nn.Module:
        """Return the encoder with its pooling, all parameters trainable."""
        return _Pooled(encoder.requires_grad_(True))

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Return groups whose learning rates fall from the last layer to the first."""
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
        return self.encoder.probed(self.encoder(images))
