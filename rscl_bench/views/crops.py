"""Random-resized crops of whole batches of tiles, on the device of the encoder.

A crop with antialiased bilinear resizing is linear and separable. On a GPU a batch of crops is
therefore two batched matrix products, rows first and then columns, with weights for each image.
The result is torchvision's ``resized_crop(antialias=True)`` for any number of bands, without a call
per image. On a CPU torch's resizing, image by image, is faster; see ``benchmarks/NOTES.md``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_ATTEMPTS = 10  # torchvision's RandomResizedCrop
_PACKED_BANDS = 4  # torch resizes uint8 images of up to 4 bands by vector instructions
_LOG_RATIO = math.log(4 / 3)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation per band in the declared unit, each ``[C]`` float32."""

    mean: Tensor
    std: Tensor

    def to(self, device: torch.device) -> "Normalisation":
        """Return a copy on a device."""
        return Normalisation(self.mean.to(device), self.std.to(device))


@dataclass(frozen=True)
class Crops:
    """One crop per image, in pixels.

    Attributes:
        top: First row, ``[B]`` int64.
        left: First column, ``[B]`` int64.
        height: Rows, ``[B]`` int64.
        width: Columns, ``[B]`` int64.
        flip: Whether the crop is mirrored left-right, ``[B]`` bool.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor
    flip: Tensor


def joined(parts: Sequence[Crops]) -> Crops:
    """Concatenate the crops of several groups of images."""
    names = [field.name for field in fields(Crops)]
    return Crops(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def draw_crops(
    count: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    flip: float,
    generator: torch.Generator,
) -> Crops:
    """Draw a batch of random-resized crops, distributed as torchvision's ``RandomResizedCrop``.

    The share of the area is uniform in ``scale``, the aspect ratio log-uniform in [3/4, 4/3]. A
    crop is the first of ten draws that fits into the tile. If no draw fits, the crop is the whole
    tile, which for square tiles is torchvision's fallback.

    Args:
        count: Number of images B.
        height: Rows of the tiles.
        width: Columns of the tiles.
        scale: Smallest and largest share of a tile's area.
        flip: Probability of a left-right flip.
        generator: Source of randomness, on the device of the result.

    Returns:
        B crops.
    """
    device = generator.device
    draws = torch.rand(5, _ATTEMPTS, count, generator=generator, device=device)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[0])
    ratio = torch.exp(_LOG_RATIO * (2 * draws[1] - 1))
    widths = torch.round(torch.sqrt(area * ratio)).long()
    heights = torch.round(torch.sqrt(area / ratio)).long()
    fits = (widths > 0) & (widths <= width) & (heights > 0) & (heights <= height)
    first = fits.float().argmax(dim=0, keepdim=True)
    any_fits = fits.any(dim=0)
    crop_h = torch.where(any_fits, heights.gather(0, first)[0], height)
    crop_w = torch.where(any_fits, widths.gather(0, first)[0], width)
    return Crops(
        top=(draws[2, 0] * (height - crop_h + 1)).long(),
        left=(draws[3, 0] * (width - crop_w + 1)).long(),
        height=crop_h,
        width=crop_w,
        flip=draws[4, 0] < flip,
    )


def whole_tiles(count: int, height: int, width: int, device: torch.device) -> Crops:
    """Return crops that cover each tile and do not flip, for probes."""
    zeros = torch.zeros(count, dtype=torch.long, device=device)
    return Crops(zeros, zeros, zeros + height, zeros + width, zeros.bool())


def resized_crops(tiles: Tensor, crops: Crops, size: int) -> Tensor:
    """Crop, flip and resize a batch with antialiasing.

    Args:
        tiles: ``[B, H, W, C]``, ``uint8`` or ``uint16``, in the declared unit.
        crops: One crop per tile.
        size: Side of the result.

    Returns:
        ``[B, C, size, size]`` in the declared unit. On a CPU, ``uint8`` tiles of up to four bands
        give ``uint8`` with bands last in memory, rounded after rows and after columns as in
        torchvision. Everything else gives float32, under autocast too.
    """
    return (_image_by_image if tiles.device.type == "cpu" else crops_as_products)(
        tiles, crops, size
    )


def _image_by_image(tiles: Tensor, crops: Crops, size: int) -> Tensor:
    batch, _, _, bands = tiles.shape
    packed = tiles.dtype == torch.uint8 and bands <= _PACKED_BANDS
    if packed:  # torch's vector instructions need bands last, as in the tiles
        result = torch.empty(batch, size, size, bands, dtype=torch.uint8).permute(0, 3, 1, 2)
    else:
        result = torch.empty(batch, bands, size, size)
    source, target = tiles.numpy(), result.numpy()
    columns = (crops.top, crops.left, crops.height, crops.width, crops.flip)
    boxes = zip(*(values.tolist() for values in columns), strict=True)
    # Crop on one thread. After an operation, torch's OpenMP threads keep spinning on their cores,
    # so more threads here would be slower.
    for image_index, (top, left, height, width, flip) in enumerate(boxes):
        # Copy with NumPy: torch would start a thread pool for each copy.
        pixels = source[image_index : image_index + 1, top : top + height, left : left + width]
        crop = np.ascontiguousarray(pixels, dtype=None if packed else np.float32)
        image = torch.from_numpy(crop).permute(0, 3, 1, 2)
        if not packed:  # floats are faster with bands first; torch infers the order from strides
            image = image[0][None]
        resized = F.interpolate(image, (size, size), mode="bilinear", antialias=True)
        target[image_index] = (resized.flip(3) if flip else resized)[0].numpy()
    return result


def crops_as_products(tiles: Tensor, crops: Crops, size: int) -> Tensor:
    """Crop, flip and resize by two matrix products, for GPUs; arguments as in `resized_crops`.

    Returns:
        ``[B, C, size, size]`` float32 in the declared unit.
    """
    batch, height, width, bands = tiles.shape
    rows = resize_weights(crops.top, crops.height, height, size)
    columns = resize_weights(crops.left, crops.width, width, size)
    columns = torch.where(crops.flip[:, None, None], columns.flip(1), columns)
    with torch.autocast(tiles.device.type, enabled=False):  # a strategy may make views under it
        # Rows first: this order needs no channels-first copy of the tiles.
        squeezed = torch.bmm(rows, tiles.reshape(batch, height, width * bands).float())
        squeezed = squeezed.view(batch, size, width, bands).permute(0, 2, 1, 3)
        image = torch.bmm(columns, squeezed.reshape(batch, width, size * bands))
    return image.view(batch, size, size, bands).permute(0, 3, 2, 1)  # from [B, W, H, C]


def normalised(images: Tensor, normalisation: Normalisation) -> Tensor:
    """Return ``(images - mean) / std`` of ``[B, C, H, W]``, float32, contiguous."""
    mean, std = normalisation.mean[:, None, None], normalisation.std[:, None, None]
    # Work in place on one copy: on a CPU new memory costs more than the arithmetic.
    copy = images.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    return copy.sub_(mean).div_(std)


def resize_weights(start: Tensor, length: Tensor, pixels: int, size: int) -> Tensor:
    """Return the antialiased bilinear weights that resize ``[start, start + length)`` to ``size``.

    The weights are the triangle filter of Pillow and torchvision: its half-width is
    ``max(length / size, 1)`` pixels, the border of the crop cuts it, and its sum is 1.

    Args:
        start: First pixel of each crop, ``[B]``.
        length: Pixels of each crop, ``[B]``.
        pixels: Pixels of the tile along this axis.
        size: Pixels of the result.

    Returns:
        ``[B, size, pixels]`` float32; rows sum to 1.
    """
    device = start.device
    start, length = start[:, None, None].double(), length[:, None, None].double()
    scale = length / size
    centre = start + (torch.arange(size, device=device)[:, None] + 0.5) * scale
    position = torch.arange(pixels, device=device)[None, :] + 0.5
    weight = (1 - (position - centre).abs() / scale.clamp(min=1)).clamp(min=0)
    weight = weight * ((position > start) & (position < start + length))
    return (weight / weight.sum(dim=2, keepdim=True)).float()
