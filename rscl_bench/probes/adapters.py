"""Probes that train an adapter of a frozen encoder: one at the input, one over the blocks."""

import torch
from timm.layers import Mlp
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.adapters import EncoderAdapter
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.vit import ViT
from rscl_bench.probes.transfer import TransferParams, TransferProbe
from rscl_bench.spec import Positive


class InputAdapterProbe(TransferProbe):
    """A probe that trains a perceptron on the class token of a frozen ViT.

    The input adapter of Gao et al. (2022), "Towards Sustainable Self-supervised Learning". The
    patches see the changed token through attention. Training starts at the encoder's class token.
    """

    def adapt(self, encoder: Encoder) -> nn.Module:
        """Return the frozen ViT with an input adapter.

        Raises:
            SpecError: If the encoder has no class token.
        """
        return _InputAdapted(_vit("input-adapter", encoder))


class EncoderAdapterParams(TransferParams):
    """How the adapter is trained.

    Attributes:
        hidden_dim: Hidden width of the adapter's perceptrons; the default is the authors' for
            ViT-B.
    """

    hidden_dim: Positive = 2048


class EncoderAdapterProbe(TransferProbe):
    """A probe that trains an adapter over the blocks of a frozen ViT.

    The encoder adapter of Gao et al. (2022); see `EncoderAdapter`. The feature is the mean over the
    adapter's patches, or its class token if ``probed_feature`` is "cls".
    """

    Params = EncoderAdapterParams
    params: EncoderAdapterParams

    def adapt(self, encoder: Encoder) -> nn.Module:
        """Return the frozen ViT with an adapter over its blocks.

        Raises:
            SpecError: If the encoder does not consist of blocks of one width.
        """
        return _EncoderAdapted(_vit("encoder-adapter", encoder), self.params.hidden_dim)


class _InputAdapted(nn.Module):
    def __init__(self, vit: ViT):
        super().__init__()
        self.vit = vit.requires_grad_(False)
        self.adapter = Mlp(vit.feature_dim, 4 * vit.feature_dim)
        nn.init.zeros_(self.adapter.fc2.weight)  # training starts at the encoder's token
        nn.init.zeros_(self.adapter.fc2.bias)

    def forward(self, images: Tensor) -> Tensor:
        token = self.vit.cls_token
        encoded, _ = self.vit.forward_blocks(images, token=token + self.adapter(token))
        return self.vit.probed(encoded)


class _EncoderAdapted(nn.Module):
    def __init__(self, vit: ViT, hidden_dim: int):
        super().__init__()
        self.vit = vit.requires_grad_(False)
        self.adapter = EncoderAdapter(vit.feature_dim, vit.params.depth, hidden_dim)

    def forward(self, images: Tensor) -> Tensor:
        with torch.no_grad():
            encoded, states = self.vit.forward_blocks(images)
        return self.vit.probed(self.adapter([*states[1:-1], encoded]))


def _vit(probe: str, encoder: Encoder) -> ViT:
    if not isinstance(encoder, ViT):
        raise SpecError(
            f"Probe '{probe}' needs an encoder with a class token and blocks of one width, which "
            f"{type(encoder).__name__} has not; set backbone.name = 'vit' or choose another probe."
        )
    return encoder
