"""What every backbone offers to objectives, strategies and probes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar, Literal

from torch import Tensor, nn

from rscl_bench.spec import Spec

Pool = Literal["patches", "cls"]


class Encoder(nn.Module, ABC):
    """An image encoder: the part of a model that is probed, mixed and kept.

    Attributes:
        Params: What a protocol's ``[backbone]`` may set.
        feature_dim: Width D of a pooled feature.
    """

    Params: ClassVar[type[Spec]]
    feature_dim: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Encode images ``[B, C, H, W]``; what is returned is for ``pool`` and for objectives."""

    @abstractmethod
    def pool(self, encoded: Tensor, how: Pool = "patches") -> Tensor:
        """Return one feature per image, ``[B, D]``, from what ``forward`` returned.

        Raises:
            SpecError: If this encoder cannot pool that way.
        """


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode for a block; it and its parts take back their own mode."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        # Not module.train(): a part that its owner keeps in evaluation mode stays so.
        for part, training in modes.items():
            part.training = training
