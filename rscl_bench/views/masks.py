"""Masks: which locations of a feature map are hidden from an encoder."""

import math

import torch
from torch import Tensor

#: Number of blocks that are tried for an image. On a 14 × 14 map the blocks fill 74.7 of 75
#: locations on average. The authors' rule, to stop after ten misfits in a row, fills 74.5.
_ATTEMPTS = 20


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
