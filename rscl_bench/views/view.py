"""Augmented views of tiles: what each view of an objective is made of, whole batches at a time."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rscl_bench.spec import Fraction, Spec, Views
from rscl_bench.views.crops import (
    Crops,
    Normalisation,
    draw_crops,
    normalised,
    resized_crops,
    whole_tiles,
)
from rscl_bench.views.photometric import (
    ColourJitter,
    blurred,
    coin,
    greyed,
    jittered,
    noisy,
    solarised,
)

Share = Annotated[float, Field(gt=0, le=1)]


class View(Spec):
    """One view: a random-resized crop, a flip, then photometric operations, each with its chance.

    The operations come in the order of the fields, as in SimCLR, BYOL and DINO.

    Attributes:
        min_scale: Smallest share of a tile's area that the crop takes; the protocol's if None.
        max_scale: Largest share.
        size: Side of the view, as a share of the protocol's image size.
        jitter: Chance of colour jitter.
        brightness: Its strength; factors are uniform in 1 ± strength, not below 0.
        contrast: The same.
        saturation: The same.
        hue: The same in turns of the colour circle; see `rscl_bench.views.photometric`.
        grey: Chance of grey.
        blur: Chance of a Gaussian blur.
        blur_sigma: Range of its deviation, in pixels at 224 pixels; it scales with the image size.
        noise: Chance of Gaussian noise.
        noise_std: Range of its deviation, as shares of the full scale.
        solarise: Chance of inverting what is above half the full scale.
    """

    min_scale: Share | None = None
    max_scale: Share = 1.0
    size: Share = 1.0
    jitter: Fraction = 0.0
    brightness: Fraction = 0.0
    contrast: Fraction = 0.0
    saturation: Fraction = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    grey: Fraction = 0.0
    blur: Fraction = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    noise: Fraction = 0.0
    noise_std: tuple[float, float] = (0.0, 0.0)
    solarise: Fraction = 0.0

    @model_validator(mode="after")
    def _ranges_rise(self) -> Self:
        if self.min_scale is not None and self.min_scale > self.max_scale:
            raise ValueError(f"min_scale ({self.min_scale}) is above max_scale ({self.max_scale})")
        for name in ("blur_sigma", "noise_std"):
            low, high = getattr(self, name)
            if not 0 <= low <= high or (name == "blur_sigma" and low == 0):
                raise ValueError(f"{name} ({low}, {high}) is no range above 0")
        return self


@dataclass(frozen=True)
class PixelScaling:
    """What the views of one archive's tiles depend on besides the tiles.

    Attributes:
        normalisation: What is subtracted and divided by.
        scale: Full scale of the declared unit.
        rgb: Places of red, green and blue if these are all bands, else None.
    """

    normalisation: Normalisation
    scale: float
    rgb: tuple[int, int, int] | None

    def to(self, device: torch.device) -> "PixelScaling":
        """Return the same on a device."""
        return PixelScaling(self.normalisation.to(device), self.scale, self.rgb)


def places_of_rgb(bands: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the places of red, green and blue if these are all bands, else None."""
    if sorted(bands) != ["blue", "green", "red"]:
        return None
    return bands.index("red"), bands.index("green"), bands.index("blue")


def view_size(view: View, image_size: int, multiple: int) -> int:
    """Return the side of a view in pixels: its share of the image size, at a multiple."""
    return max(multiple, round(view.size * image_size / multiple) * multiple)


def make_view(
    tiles: Tensor,
    view: View,
    size: int,
    defaults: Views,
    archive: PixelScaling,
    generator: torch.Generator,
    host: torch.Generator,
) -> tuple[Tensor, Crops]:
    """Return one view of each tile, and which part of it that is.

    Args:
        tiles: ``[B, H, W, C]``, raw, in the declared unit.
        view: What is done.
        size: Side of the view.
        defaults: The protocol's smallest scale and chance of a flip.
        archive: Of the tiles.
        generator: Source of randomness, on the device of the tiles.
        host: The same on the CPU, for the order of operations; on a CPU it is ``generator``.

    Returns:
        ``[B, C, size, size]`` float32, normalised, and the crops.
    """
    count, height, width, _ = tiles.shape
    least = defaults.min_scale if view.min_scale is None else view.min_scale
    flip = defaults.horizontal_flip
    crops = draw_crops(count, height, width, (least, view.max_scale), flip, generator)
    images = resized_crops(tiles, crops, size)
    if view.jitter or view.grey or view.blur or view.noise or view.solarise:
        shares = images.contiguous() / archive.scale
        images = _recoloured(shares, view, archive, generator, host) * archive.scale
    return normalised(images, archive.normalisation), crops


def whole_view(tiles: Tensor, size: int, archive: PixelScaling) -> Tensor:
    """Return tiles as probes see them: whole, resized, unflipped.

    Args:
        tiles: ``[B, H, W, C]``, raw, in the declared unit.
        size: Side of the view.
        archive: Of the tiles, on their device.

    Returns:
        ``[B, C, size, size]`` float32, normalised.
    """
    count, height, width, _ = tiles.shape
    crops = whole_tiles(count, height, width, tiles.device)
    return normalised(resized_crops(tiles, crops, size), archive.normalisation)


def _recoloured(
    images: Tensor,
    view: View,
    archive: PixelScaling,
    generator: torch.Generator,
    host: torch.Generator,
) -> Tensor:
    """Return images ``[B, C, H, W]``, as shares of the full scale, after photometric operations."""
    count, size = len(images), images.shape[-1]
    if view.jitter:
        strength = ColourJitter(view.brightness, view.contrast, view.saturation, view.hue)
        changed = jittered(images, strength, archive.rgb, generator, host)
        images = torch.where(coin(count, view.jitter, generator), changed, images)
    if view.grey:
        changed = greyed(images, archive.rgb)
        images = torch.where(coin(count, view.grey, generator), changed, images)
    if view.blur:
        low, high = (sigma * size / 224 for sigma in view.blur_sigma)
        changed = blurred(images, low, high, generator)
        images = torch.where(coin(count, view.blur, generator), changed, images)
    if view.noise:
        changed = noisy(images, *view.noise_std, generator)
        images = torch.where(coin(count, view.noise, generator), changed, images)
    if view.solarise:
        images = torch.where(coin(count, view.solarise, generator), solarised(images), images)
    return images
