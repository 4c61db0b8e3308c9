"""What every self-supervised objective offers to the engine, to strategies and to probes."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.spec import Spec


@dataclass(frozen=True)
class Output:
    """What one step of an objective gives.

    Attributes:
        loss: The self-supervised loss, a scalar.
        encoded: What the encoder returned for each view, for ``encoder.pool``.
    """

    loss: Tensor
    encoded: tuple[Tensor, ...]


class Objective(nn.Module, ABC):
    """A self-supervised loss with its encoder and heads.

    A subclass takes ``(params, encoder)`` and assigns ``self.encoder``; whatever else it trains it
    assigns as sub-modules. It may offer more for strategies that need it: ``per_image_loss = True``
    says that the loss is a mean over images, each on its own.

    Attributes:
        Params: What a recipe may set.
        views: How many augmented views of each image the loss takes.
        encoder: What is probed and kept.
    """

    Params: ClassVar[type[Spec]]
    views: ClassVar[int] = 1
    encoder: Encoder

    def __init__(self, params: Spec, encoder: Encoder):
        super().__init__()
        self.encoder = encoder

    @abstractmethod
    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> Output:
        """Return loss and encoded views.

        Args:
            views: ``self.views`` tensors, each ``[B, C, H, W]``, normalised.
            generator: The step's source of randomness, on the device of the views.

        Returns:
            The output; its loss is finite for finite views.
        """
