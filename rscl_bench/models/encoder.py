"""What every backbone offers to objectives, strategies and probes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.spec import Spec

Pool = Literal["patches", "cls"]


class Encoder(nn.Module, ABC):
    """An image encoder: the part of a model that is probed, mixed and kept.

    Attributes:
        Params: What a protocol's ``[backbone]`` may set.
        feature_dim: Width D of a pooled feature.
        channels: Bands C of the input.
        multiple: Sides of inputs are multiples of this, in pixels.
        cell: Side in pixels of the smallest part that a token can stand for.
        place: Side in pixels of what a place of ``grid`` stands for.
        token_dim: Width of the token.
        pools: How features can be pooled.
    """

    Params: ClassVar[type[Spec]]
    pools: ClassVar[Sequence[Pool]] = ("patches",)
    feature_dim: int
    channels: int
    multiple: int
    cell: int
    place: int
    token_dim: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Encode images ``[B, C, H, W]``; what is returned is for ``pool`` and for objectives."""

    @abstractmethod
    def pool(self, encoded: Tensor, how: Pool = "patches") -> Tensor:
        """Return one feature per image, ``[B, D]``, from what ``forward`` returned.

        Raises:
            SpecError: If this encoder cannot pool that way.
        """

    def places(self, encoded: Tensor) -> Tensor:
        """Return the features of all places, row by row, ``[B, N, D]``."""
        return self.grid(encoded).flatten(2).transpose(1, 2)

    @abstractmethod
    def forward_with_mask_token_added(
        self, images: Tensor, hidden: Tensor, token: Tensor
    ) -> Tensor:
        """Encode images, a token added to what the first stage sees of some cells.

        Args:
            images: ``[B, C, H, W]``.
            hidden: Which cells, ``[B, H / cell, W / cell]`` bool.
            token: ``[token_dim]``.

        Returns:
            As ``forward``.
        """

    def check_pool(self, how: Pool) -> None:
        """Refuse a way of pooling that this encoder has not.

        Raises:
            SpecError: If it has not.
        """
        if how not in self.pools:
            raise SpecError(
                f"{type(self).__name__} has no class token to pool by; set feature = 'patches'."
            )

    @abstractmethod
    def grid(self, encoded: Tensor) -> Tensor:
        """Return the features of all places, ``[B, D, h, w]``, from what ``forward`` returned."""

    @abstractmethod
    def timm_model(self) -> nn.Module:
        """Return the part that holds all parameters and knows the order of its layers.

        Another library's model will do if it has timm's ``group_matcher``.
        """


class MaskableEncoder(Encoder):
    """An encoder that can see a learnt token in place of hidden parts of an image.

    ``place`` is a multiple of ``cell``.
    """

    @abstractmethod
    def forward_masked(self, images: Tensor, hidden: Tensor, token: Tensor) -> Tensor:
        """Encode images of which some cells are replaced by a token.

        Args:
            images: ``[B, C, H, W]``.
            hidden: Which cells are, ``[B, H / cell, W / cell]`` bool.
            token: ``[token_dim]``.

        Returns:
            As ``forward``.
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


def keep_in_autocast_dtype(module: nn.Module, device_type: str) -> None:
    """Keep a frozen module's large weights as autocast would cast them, if it is on.

    The same bits as with a cast at every forward pass, which autocast does not remember for weights
    without gradient. For copies that no optimiser and no mixture of weights needs in full.
    """
    if not torch.is_autocast_enabled(device_type):
        return
    dtype = torch.get_autocast_dtype(device_type)
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d) and part.weight.dtype != dtype:
            part.to(dtype)
