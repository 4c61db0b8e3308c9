"""What objectives share that hide parts of an image behind a learnt token and predict them."""

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

Ratio = Annotated[float, Field(gt=0, lt=1)]

#: Blocks that are tried for an image. At 14 x 14 they fill 74.7 of 75 places on average; the
#: authors' rule, to end after ten in a row that do not fit, fills 74.5.
_ATTEMPTS = 20


class Masked(Objective):
    """Shows the encoder a token in place of hidden cells, and predicts at its places.

    A place is what one vector of ``encoder.grid`` stands for: a patch of a ViT, or a patch of the
    last stage of a Swin transformer. Every image hides as much as any other.
    """

    per_image_loss = True
    stateless_loss = True
    encoder: MaskableEncoder

    def __init__(self, params: Spec, encoder: MaskableEncoder, view: View, outputs: int):
        """Make token and head.

        Args:
            params: The objective's.
            encoder: What is trained.
            view: How an image is seen.
            outputs: Width of a place's prediction.
        """
        super().__init__(params, encoder)
        self.views = (view,)
        self.token = nn.Parameter(torch.zeros(encoder.token_dim))
        self.predict = nn.Linear(encoder.feature_dim, outputs)
        for weight in (self.token, self.predict.weight):
            nn.init.trunc_normal_(weight, std=0.02)
        nn.init.zeros_(self.predict.bias)

    def encode(self, images: Tensor, hidden: Tensor) -> Tensor:
        """Return what the encoder makes of images without their hidden parts.

        Args:
            images: ``[B, C, H, W]``.
            hidden: ``[B, n, n]`` bool, over parts of equal size, each of whole cells.
        """
        cells = images.shape[-1] // self.encoder.mask_stride
        return self.encoder.forward_masked(images, enlarged(hidden, cells), self.token)


class BlockMaskingParams(Spec):
    """Blockwise masking (Bao et al. 2022, "BEiT", Algorithm 1).

    Attributes:
        mask_ratio: Share of places that are hidden, rounded to whole places.
        min_block: Smallest area that is drawn for a block, in places at 14 x 14; it scales along.
        min_aspect: Smallest aspect ratio of a block; the largest is its inverse.
    """

    mask_ratio: Ratio
    min_block: Positive
    min_aspect: Annotated[float, Field(gt=0, le=1)] = 0.3


class BlockMasked(Masked):
    """Hides blocks of places, and predicts a target at every hidden place."""

    def __init__(
        self, params: BlockMaskingParams, encoder: MaskableEncoder, view: View, outputs: int
    ):
        super().__init__(params, encoder, view, outputs)
        self.masking = params

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the loss of the predictions at hidden places; see `Objective.forward`."""
        (images,) = views
        side = images.shape[-1] // self.encoder.feature_stride
        places = self.draw(len(images), side, generator)
        encoded = self.encode(images, mask_of(places, side))
        predicted = self.predict(utils.get_at_index(self.encoder.locations(encoded), places))
        with torch.autocast(images.device.type, enabled=False):
            with torch.no_grad():
                targets = self.targets(images, places)
            return ObjectiveOutput(self.compare(predicted.float(), targets), (encoded,))

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Return the hidden places of so many images, ``[B, M]``; see `draw_blocks`."""
        masking, places = self.masking, side**2
        hidden = check_mask_count(round(places * masking.mask_ratio), places, "places")
        least = masking.min_block * places / 14**2
        return draw_blocks(count, side, hidden, least, masking.min_aspect, generator)

    @abstractmethod
    def targets(self, images: Tensor, places: Tensor) -> Tensor:
        """Return what is to be predicted at some places, row by row ``[B, M]``: ``[B, M, ...]``."""

    @abstractmethod
    def compare(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of predictions ``[B, M, outputs]`` float32, a mean over images."""


def require_maskable(encoder: Encoder, objective: str) -> MaskableEncoder:
    """Return the encoder of an objective.

    Raises:
        SpecError: If it cannot hide parts of an image behind a token.
    """
    if not isinstance(encoder, MaskableEncoder):
        raise SpecError(
            f"Objective '{objective}' needs an encoder that can see a token in place of parts of "
            f"an image, which {type(encoder).__name__} cannot; set backbone.name = 'vit' or 'swin'."
        )
    return encoder


def check_mask_count(hidden: int, parts: int, name: str) -> int:
    """Return how many parts are hidden.

    Raises:
        SpecError: If these are none or all.
    """
    if not 0 < hidden < parts:
        raise SpecError(
            f"mask_ratio hides {hidden} of {parts} {name} of an image; at least one must be hidden "
            "and one visible."
        )
    return hidden


def nearest_divisor(number: int, wanted: float) -> int:
    """Return the divisor of a number that is nearest to what is wanted, the smaller of two."""
    divisors = [n for n in range(1, number + 1) if number % n == 0]
    return min(divisors, key=lambda n: abs(n - wanted))


def draw_singly(count: int, parts: int, hidden: int, generator: torch.Generator) -> Tensor:
    """Return which parts of each image are hidden, ``[B, hidden]``, any as likely as any other."""
    noise = torch.rand(count, parts, generator=generator, device=generator.device)
    return noise.argsort(dim=1)[:, :hidden]


def draw_blocks(
    count: int,
    side: int,
    hidden: int,
    least: float,
    min_aspect: float,
    generator: torch.Generator,
) -> Tensor:
    """Return which places are hidden, ``[B, hidden]`` int64, row by row; see `block_order`.

    Args:
        count: Number of images B.
        side: Places along a side of an image.
        hidden: Places that are hidden, the same number in every image.
        least: Smallest area that is drawn for a block, in places.
        min_aspect: Smallest aspect ratio; the largest is its inverse.
        generator: Source of randomness; its device is the result's.
    """
    each = torch.full((count,), hidden, device=generator.device)
    return block_order(each, side, least, min_aspect, generator)[:, :hidden]


def block_order(
    hidden: Tensor, side: int, least: float, min_aspect: float, generator: torch.Generator
) -> Tensor:
    """Return the places of each image, those first that are hidden, block after block.

    Bao et al. (2022), "BEiT", Algorithm 1. A block's area is uniform between the least and what is
    still to be hidden, its aspect ratio log-uniform, its position uniform; one that does not fit,
    adds nothing or adds too much is drawn again. What blocks do not fill after so many attempts is
    filled by single places, so that every image hides as many as it should.

    Args:
        hidden: How many places of each image are hidden, ``[B]``.
        side: Places along a side of an image.
        least: Smallest area that is drawn for a block, in places.
        min_aspect: Smallest aspect ratio; the largest is its inverse.
        generator: Source of randomness; its device is the result's.

    Returns:
        ``[B, side²]`` int64, row by row; see `mask_of`.
    """
    device, count = generator.device, len(hidden)
    draws = torch.rand(_ATTEMPTS, 4, count, generator=generator, device=device)
    areas, aspects, places = draws[:, 0], draws[:, 1], draws[:, 2:]
    height = torch.exp((1 - 2 * aspects) * math.log(min_aspect) / 2)  # at area 1
    shapes = torch.stack([height, 1 / height], dim=1)
    mask = torch.zeros(count, side, side, dtype=torch.bool, device=device)
    left = hidden.float()
    for area, shape, place in zip(areas, shapes, places, strict=True):
        sizes = ((least + (left - least) * area).sqrt() * shape).round()
        block = rectangles(sizes, place, side)
        added = (block & ~mask).sum(dim=(1, 2))
        good = (sizes < side).all(dim=0) & (added > 0) & (added <= left)
        mask |= block & good[:, None, None]
        left = left - added * good
    noise = torch.rand(count, side**2, generator=generator, device=device)
    return (noise - mask.flatten(1).float()).argsort(dim=1)


def block_masks(
    hidden: Tensor, side: int, least: float, min_aspect: float, generator: torch.Generator
) -> Tensor:
    """Return masks ``[B, side, side]`` with so many places each, ``[B]``; see `block_order`."""
    order = block_order(hidden, side, least, min_aspect, generator)
    first = torch.arange(side**2, device=hidden.device) < hidden[:, None]
    return torch.zeros_like(first).scatter_(1, order, first).reshape(-1, side, side)


def rectangles(sizes: Tensor, places: Tensor, side: int) -> Tensor:
    """Return rectangles within a square of places, ``[..., side, side]`` bool.

    Args:
        sizes: Numbers of rows and of columns, ``[2, ...]``.
        places: Where between top and bottom, and left and right, from 0 to below 1, ``[2, ...]``.
        side: Of the square.
    """
    sizes, places = sizes[..., None], places[..., None]
    first = (places * (side - sizes + 1)).floor()
    number = torch.arange(side, device=places.device)
    inside = (number >= first) & (number < first + sizes)
    return inside[0][..., :, None] & inside[1][..., None, :]


def mask_of(places: Tensor, side: int) -> Tensor:
    """Return a mask that is true at places ``[B, M]``, counted row by row: ``[B, side, side]``."""
    mask = torch.zeros(len(places), side**2, dtype=torch.bool, device=places.device)
    return mask.scatter_(1, places, True).reshape(-1, side, side)


def enlarged(mask: Tensor, side: int) -> Tensor:
    """Return a mask ``[B, n, n]`` at a finer resolution, ``[B, side, side]``."""
    times = side // mask.shape[-1]
    return mask.repeat_interleave(times, dim=1).repeat_interleave(times, dim=2)
