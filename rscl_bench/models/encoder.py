"""The interface that every backbone offers to objectives, strategies and probes."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

import torch
from torch import Tensor, nn

from rscl_bench.encoder_bands import EncoderBands
from rscl_bench.errors import SpecError
from rscl_bench.spec import Pool, Spec


class Encoder(nn.Module, ABC):
    """An image encoder: the part of a model that is probed, mixed and kept.

    An encoder maps images to a feature map. A position of the feature map is a *location*; it
    stands for ``feature_stride`` × ``feature_stride`` pixels. A *mask cell* is the smallest square
    of pixels that a mask token can stand for; its side is ``mask_stride`` pixels.

    Attributes:
        Params: The parameters that ``[backbone]`` of a protocol may set.
        pools: The supported ways of pooling features.
        probed_feature: How probes pool the encoder's output.
        feature_dim: Width D of a pooled feature.
        channels: Bands C of the input.
        bands: The bands of the channels, where images differ in bands; see
            `rscl_bench.models.band_convolution`. None where all images have all channels.
        first_convolution: Name of the submodule that images enter, an ``nn.Conv2d``. An encoder
            that names none takes no images that differ in bands.
        multiple: The sides of an input, in pixels, must be multiples of this number.
        mask_stride: Side of a mask cell in pixels.
        feature_stride: Side in pixels of the square that a location of ``grid`` stands for.
        token_dim: Width of the mask token.
    """

    Params: ClassVar[type[Spec]]
    pools: ClassVar[Sequence[Pool]] = ("patches",)
    first_convolution: ClassVar[str | None] = None
    bands: EncoderBands | None = None
    probed_feature: Pool = "patches"
    feature_dim: int
    channels: int
    multiple: int
    mask_stride: int
    feature_stride: int
    token_dim: int

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Encode images ``[B, C, H, W]``. ``pool``, ``grid`` and ``locations`` read the result."""

    @abstractmethod
    def grid(self, encoded: Tensor) -> Tensor:
        """Return the feature map ``[B, D, h, w]`` from the output of ``forward``."""

    @abstractmethod
    def forward_with_mask_token_added(
        self, images: Tensor, hidden: Tensor, token: Tensor
    ) -> Tensor:
        """Encode images and add a mask token to the first stage's output at hidden mask cells.

        Args:
            images: ``[B, C, H, W]``.
            hidden: The hidden mask cells, ``[B, H / mask_stride, W / mask_stride]`` bool.
            token: The mask token, ``[token_dim]``.

        Returns:
            Encoded images, in the form that ``forward`` returns.
        """

    @abstractmethod
    def timm_model(self) -> nn.Module:
        """Return the submodule that holds all parameters and can order its layers.

        A model of another library is possible if it has timm's ``group_matcher``.
        """

    def pooling_timm_model(self) -> nn.Module:
        """Return the submodule of `timm_model`, set so that its output is the probed feature.

        The output for images ``[B, C, H, W]`` is ``[B, D]``, where the class says how timm's model
        pools. Other classes return the submodule as it is.
        """
        return self.timm_model()

    def pool(self, encoded: Tensor, how: Pool = "patches") -> Tensor:
        """Return one feature per image, ``[B, D]``: the mean over all locations.

        Args:
            encoded: The output of ``forward``.
            how: Mean over locations ("patches"), or class token ("cls").

        Raises:
            SpecError: If the encoder does not support this way of pooling.
        """
        self.check_pool(how)
        return self.grid(encoded).mean(dim=(2, 3))

    def probed(self, encoded: Tensor) -> Tensor:
        """Return the feature of each image that probes evaluate, ``[B, D]``."""
        return self.pool(encoded, self.probed_feature)

    def locations(self, encoded: Tensor) -> Tensor:
        """Return the features of all locations, row by row, ``[B, N, D]``."""
        return self.grid(encoded).flatten(2).transpose(1, 2)

    def check_pool(self, how: Pool, setting: str = "feature") -> None:
        """Check that the encoder supports a way of pooling.

        Args:
            how: The way of pooling.
            setting: The setting that asks for it, for the message.

        Raises:
            SpecError: If the encoder does not support this way of pooling.
        """
        if how not in self.pools:
            raise SpecError(
                f"{type(self).__name__} has no class token to pool by; set {setting} = 'patches'."
            )


class MaskableEncoder(Encoder):
    """An encoder that can see a learnt token in place of hidden parts of an image.

    ``feature_stride`` is a multiple of ``mask_stride``.
    """

    @abstractmethod
    def forward_masked(self, images: Tensor, hidden: Tensor, token: Tensor) -> Tensor:
        """Encode images with a mask token in place of every hidden mask cell.

        Args:
            images: ``[B, C, H, W]``.
            hidden: The hidden mask cells, ``[B, H / mask_stride, W / mask_stride]`` bool.
            token: The mask token, ``[token_dim]``.

        Returns:
            Encoded images, in the form that ``forward`` returns.
        """


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set a module to evaluation mode within the block, then restore the mode of each submodule."""
    modes = {submodule: submodule.training for submodule in module.modules()}
    module.eval()
    try:
        yield
    finally:
        # Not module.train(): a submodule that its owner keeps in evaluation mode must stay in it.
        for submodule, training in modes.items():
            submodule.training = training


def keep_in_autocast_dtype(module: nn.Module, device_type: str) -> None:
    """Store the large weights of a frozen module in the autocast dtype, if autocast is on.

    The results are bit-identical: autocast would cast these weights at every forward pass, because
    it caches casts only for weights with gradient. Use this function only for copies whose float32
    weights neither an optimiser nor a mixture of weights needs.
    """
    if not torch.is_autocast_enabled(device_type):
        return
    dtype = torch.get_autocast_dtype(device_type)
    for submodule in module.modules():
        if isinstance(submodule, nn.Linear | nn.Conv2d) and submodule.weight.dtype != dtype:
            submodule.to(dtype)
