"""Small networks that are trained on the outputs of an encoder."""

from collections.abc import Sequence

import torch
from timm.layers import Mlp
from torch import Tensor, nn

_GROUP = 3  # blocks that one branch fuses, in ViT-B and ViT-L alike


class EncoderAdapter(nn.Module):
    """Fuses the outputs of all encoder blocks in groups of three and sums the fused groups.

    Gao et al. (2022), "Towards Sustainable Self-supervised Learning", "encoder adapter".
    """

    def __init__(self, width: int, depth: int, hidden: int):
        """Build the adapter.

        Args:
            width: Width D of the tokens.
            depth: Number of encoder blocks.
            hidden: Hidden width of the perceptron that follows each fusion.
        """
        super().__init__()
        self.widths = [width * min(_GROUP, depth - first) for first in range(0, depth, _GROUP)]
        self.before = nn.LayerNorm(width * depth)
        self.fuse = nn.ModuleList(nn.Linear(group_width, width) for group_width in self.widths)
        self.refine = nn.ModuleList(Mlp(width, hidden) for _ in self.widths)
        self.after = nn.LayerNorm(width)

    def forward(self, states: Sequence[Tensor]) -> Tensor:
        """Map the outputs of all blocks, each ``[B, K, D]``, to one ``[B, K, D]``."""
        groups = self.before(torch.cat(list(states), dim=-1)).split(self.widths, dim=-1)
        fused = [fuse(group) for fuse, group in zip(self.fuse, groups, strict=True)]
        refined = [group + refine(group) for refine, group in zip(self.refine, fused, strict=True)]
        adapted: Tensor = self.after(torch.stack(refined).sum(dim=0))
        return adapted
