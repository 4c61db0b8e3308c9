"""A model of two numbers, for penalties."""

from typing import Any, cast

import torch
from torch import Tensor, nn

from rscl_bench.strategies.base import Context
from rscl_bench.testing import tiny_spec


def context_of(model: nn.Module) -> Context:
    """Return what a penalty needs of a context: the parameters and the device."""
    objective, protocol = cast("Any", model), tiny_spec().protocol
    return Context(objective, protocol, seed=0, device=torch.device("cpu"))


class Pair(nn.Module):
    """Two trained parameters of one element each, and a frozen one between them."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.tensor([first]))
        self.frozen = nn.Parameter(torch.tensor([9.0]), requires_grad=False)
        self.second = nn.Parameter(torch.tensor([second]))

    def loss(self) -> Tensor:
        """Return a loss with gradient (10, 100)."""
        return 10 * self.first.sum() + 100 * self.second.sum()
