"""Masking: which locations are hidden, and objectives that predict what a mask token replaces."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated

import torch
from lightly.models import utils
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import Encoder, MaskableEncoder
from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.spec import Positive, Spec
from rscl_bench.views.view import View

#: Share of the units of an image that are hidden.
Ratio = Annotated[float, Field(gt=0, lt=1)]

#: Number of blocks that are tried for an image. On a 14 × 14 map the blocks fill 74.7 of 75
#: locations on average. The authors' rule, to stop after ten misfits in a row, fills 74.5.
_ATTEMPTS = 20


class Masked(Objective):
    """Hides parts of an image behind a mask token and predicts the hidden parts.

    The prediction is made at every location of the encoder's feature map (see `Encoder`). Every
    image of a batch hides the same number of units.
    """

    per_image_loss = True
    stateless_loss = True
    encoder: MaskableEncoder

    def __init__(self, params: Spec, encoder: MaskableEncoder, view: View, outputs: int):
        """Create the mask token and the prediction head.

        Args:
            params: The objective's parameters.
            encoder: The encoder to train.
            view: How the view of an image is made.
            outputs: Width of the prediction at a location.
        """
        super().__init__(params, encoder)
        self.views = (view,)
        self.token = nn.Parameter(torch.zeros(encoder.token_dim))
        self.predict = nn.Linear(encoder.feature_dim, outputs)
        for weight in (self.token, self.predict.weight):
            nn.init.trunc_normal_(weight, std=0.02)
        nn.init.zeros_(self.predict.bias)

    def encode(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Encode images with the mask token in place of hidden units.

        Args:
            images: ``[B, C, H, W]``.
            hidden: The hidden units, ``[B, n, n]`` bool. The units tile the image; each is a whole
                number of mask cells.
        """
        cells = images.shape[-1] // self.encoder.mask_stride
        return self.encoder.forward_masked(images, enlarged(hidden, cells), self.token)


class BlockMaskingParams(Spec):
    """Blockwise masking (Bao et al. 2022, "BEiT", Algorithm 1).

    Attributes:
        mask_ratio: Share of locations that are hidden, rounded to a whole number of locations.
        min_block: Smallest area of a block, in locations of a 14 × 14 map; the area scales with the
            map.
        min_aspect: Smallest aspect ratio of a block; the largest is its inverse.
    """

    mask_ratio: Ratio
    min_block: Positive
    min_aspect: Annotated[float, Field(gt=0, le=1)] = 0.3


class BlockMasked(Masked):
    """Hides blocks of locations and predicts a target at every hidden location."""

    def __init__(
        self, params: BlockMaskingParams, encoder: MaskableEncoder, view: View, outputs: int
    ):
        """Set up the objective; see `Masked`."""
        super().__init__(params, encoder, view, outputs)
        self.masking = params

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the loss of the predictions at hidden locations; see `Objective.forward`."""
        (images,) = views
        side = images.shape[-1] // self.encoder.feature_stride
        hidden = self.draw(len(images), side, generator)
        encoded = self.encode(images, mask_of(hidden, side))
        features = utils.get_at_index(self.encoder.locations(encoded), hidden)
        predicted = self.predict(features)
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                targets = self.targets(images, hidden)
            return ObjectiveOutput(self.compare(predicted.float(), targets), (encoded,))

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Return the hidden locations of ``count`` images, ``[count, M]``; see `draw_blocks`."""
        masking, locations = self.masking, side**2
        hidden = check_mask_count(round(locations * masking.mask_ratio), locations, "locations")
        min_area = masking.min_block * locations / 14**2
        return draw_blocks(count, side, hidden, min_area, masking.min_aspect, generator)

    @abstractmethod
    def targets(self, images: Tensor, locations: Tensor) -> Tensor:
        """Return the targets at some locations.

        Args:
            images: ``[B, C, H, W]`` float32.
            locations: Indices of locations, counted row by row, ``[B, M]`` int64.

        Returns:
            ``[B, M, ...]``.
        """

    @abstractmethod
    def compare(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Return the loss, a mean over images.

        Args:
            predicted: Predictions, ``[B, M, outputs]`` float32.
            targets: The result of `targets`.
        """


def require_maskable(encoder: Encoder, objective: str) -> MaskableEncoder:
    """Return the encoder, and refuse an encoder without mask tokens.

    Args:
        encoder: Any encoder.
        objective: Name of the objective, for the message.

    Raises:
        SpecError: If the encoder cannot hide parts of an image behind a token.
    """
    if not isinstance(encoder, MaskableEncoder):
        raise SpecError(
            f"Objective '{objective}' needs an encoder that can see a token in place of parts of "
            f"an image, which {type(encoder).__name__} cannot; set backbone.name = 'vit' or 'swin'."
        )
    return encoder


def check_mask_count(hidden: int, units: int, name: str) -> int:
    """Return the number of hidden units, and refuse none or all.

    Args:
        hidden: Number of hidden units of an image.
        units: Number of units of an image.
        name: Plural name of the units, for the message.

    Raises:
        SpecError: If no unit or every unit would be hidden.
    """
    if not 0 < hidden < units:
        raise SpecError(
            f"mask_ratio hides {hidden} of {units} {name} of an image; at least one must be hidden "
            "and one visible."
        )
    return hidden


def nearest_divisor(dividend: int, wanted: float) -> int:
    """Return the divisor of ``dividend`` nearest to ``wanted``; of two, the smaller."""
    divisors = [n for n in range(1, dividend + 1) if dividend % n == 0]
    return min(divisors, key=lambda n: abs(n - wanted))


def draw_singly(count: int, units: int, hidden: int, generator: torch.Generator) -> Tensor:
    """Return the hidden units of each image, all choices equally likely.

    Args:
        count: Number B of images.
        units: Number of units of an image.
        hidden: Number of hidden units of an image.
        generator: Source of randomness. The result is on its device.

    Returns:
        Indices of the hidden units, ``[B, hidden]`` int64.
    """
    noise = torch.rand(count, units, generator=generator, device=generator.device)
    return noise.argsort(dim=1)[:, :hidden]


def draw_blocks(
    count: int,
    side: int,
    hidden: int,
    min_area: float,
    min_aspect: float,
    generator: torch.Generator,
) -> Tensor:
    """Return the hidden locations of each image, in blocks; see `block_order`.

    Args:
        count: Number B of images.
        side: Number of locations along a side of an image.
        hidden: Number of hidden locations of every image.
        min_area: Smallest area of a block, in locations.
        min_aspect: Smallest aspect ratio of a block; the largest is its inverse.
        generator: Source of randomness. The result is on its device.

    Returns:
        Indices of the hidden locations, counted row by row, ``[B, hidden]`` int64.
    """
    counts = torch.full((count,), hidden, device=generator.device)
    return block_order(counts, side, min_area, min_aspect, generator)[:, :hidden]


def block_order(
    hidden: Tensor, side: int, min_area: float, min_aspect: float, generator: torch.Generator
) -> Tensor:
    """Return all locations of each image, ordered so that the first ones are to be hidden.

    Bao et al. (2022), "BEiT", Algorithm 1. The area of a block is uniform between ``min_area`` and
    the number of locations still to be hidden; the aspect ratio is log-uniform; the position is
    uniform. A block that does not fit, adds nothing or adds too much is drawn again. After a fixed
    number of attempts, single locations complete the mask, so that every image hides as many
    locations as it should.

    Args:
        hidden: Number of locations to hide in each image, ``[B]``.
        side: Number of locations along a side of an image.
        min_area: Smallest area of a block, in locations.
        min_aspect: Smallest aspect ratio of a block; the largest is its inverse.
        generator: Source of randomness. The result is on its device.

    Returns:
        Indices of locations, counted row by row, ``[B, side²]`` int64.
    """
    device, count = generator.device, len(hidden)
    draws = torch.rand(_ATTEMPTS, 4, count, generator=generator, device=device)
    areas, aspects, positions = draws[:, 0], draws[:, 1], draws[:, 2:]
    height = torch.exp((1 - 2 * aspects) * math.log(min_aspect) / 2)  # at area 1
    shapes = torch.stack([height, 1 / height], dim=1)
    mask = torch.zeros(count, side, side, dtype=torch.bool, device=device)
    left = hidden.float()
    for area, shape, position in zip(areas, shapes, positions, strict=True):
        sizes = ((min_area + (left - min_area) * area).sqrt() * shape).round()
        block = rectangles(sizes, position, side)
        added = (block & ~mask).sum(dim=(1, 2))
        accepted = (sizes < side).all(dim=0) & (added > 0) & (added <= left)
        mask |= block & accepted[:, None, None]
        left = left - added * accepted
    noise = torch.rand(count, side**2, generator=generator, device=device)
    return (noise - mask.flatten(1).float()).argsort(dim=1)


def block_masks(
    hidden: Tensor, side: int, min_area: float, min_aspect: float, generator: torch.Generator
) -> Tensor:
    """Return masks that hide blocks of locations; arguments as in `block_order`.

    Returns:
        ``[B, side, side]`` bool, with ``hidden[i]`` true locations in mask i.
    """
    order = block_order(hidden, side, min_area, min_aspect, generator)
    is_hidden = torch.arange(side**2, device=hidden.device) < hidden[:, None]
    return torch.zeros_like(is_hidden).scatter_(1, order, is_hidden).reshape(-1, side, side)


def rectangles(sizes: Tensor, positions: Tensor, side: int) -> Tensor:
    """Return rectangles within a square map of locations.

    Args:
        sizes: Numbers of rows and of columns of each rectangle, ``[2, ...]``.
        positions: Position of each rectangle between top and bottom and between left and right, in
            [0, 1), ``[2, ...]``.
        side: Number of locations along a side of the map.

    Returns:
        ``[..., side, side]`` bool.
    """
    sizes, positions = sizes[..., None], positions[..., None]
    first = (positions * (side - sizes + 1)).floor()
    index = torch.arange(side, device=positions.device)
    inside = (index >= first) & (index < first + sizes)
    return inside[0][..., :, None] & inside[1][..., None, :]


def mask_of(locations: Tensor, side: int) -> Tensor:
    """Return a mask that is true at the given locations.

    Args:
        locations: Indices of locations, counted row by row, ``[B, M]`` int64.
        side: Number of locations along a side of the mask.

    Returns:
        ``[B, side, side]`` bool.
    """
    mask = torch.zeros(len(locations), side**2, dtype=torch.bool, device=locations.device)
    return mask.scatter_(1, locations, True).reshape(-1, side, side)


def enlarged(mask: Tensor, side: int) -> Tensor:
    """Return a mask ``[B, n, n]`` at a finer resolution, ``[B, side, side]``; n divides side."""
    factor = side // mask.shape[-1]
    return mask.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
