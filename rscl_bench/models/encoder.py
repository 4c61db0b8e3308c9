"""What every backbone offers to objectives, strategies and probes."""

from abc import ABC, abstractmethod
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
