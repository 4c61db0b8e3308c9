"""Small networks that are trained over an encoder."""

from collections.abc import Sequence

import torch
from timm.layers import Mlp
from torch import Tensor, nn

_GROUP = 3  # blocks that one branch fuses, in ViT-B and ViT-L alike


class EncoderAdapter(nn.Module):
    """Fuses the outputs of all blocks of an encoder, three by three, and adds the results.

    Gao et al. (2022), "Towards Sustainable Self-supervised Learning", "encoder adapter".
    """

    def __init__(self, width: int, depth: int, hidden: int):
        """Build the adapter.

        Args:
            width: D of the tokens.
            depth: Blocks of the encoder.
            hidden: Hidden width of the perceptron after each fusion.
        """
        super().__init__()
        self.widths = [width * min(_GROUP, depth - first) for first in range(0, depth, _GROUP)]
        self.before = nn.LayerNorm(width * depth)
        self.fuse = nn.ModuleList(nn.Linear(wide, width) for wide in self.widths)
        self.refine = nn.ModuleList(Mlp(width, hidden) for _ in self.widths)
        self.after = nn.LayerNorm(width)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Return ``[B, K, D]`` of as much after every block."""
        groups = self.before(torch.cat(list(states), dim=-1)).split(self.widths, dim=-1)
        fused = [fuse(group) for fuse, group in zip(self.fuse, groups, strict=True)]
        parts = [one + refine(one) for refine, one in zip(self.refine, fused, strict=True)]
        adapted: Tensor = self.after(torch.stack(parts).sum(dim=0))
        return adapted
