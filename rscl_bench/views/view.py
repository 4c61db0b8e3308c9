"""Augmented views of whole batches of tiles: declarations (`View`) and functions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from rscl_bench.encoder_bands import Channels
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
    """One view: a random-resized crop, a flip, then photometric operations by chance.

    The order of the operations is the order of the fields, as in SimCLR, BYOL and DINO.

    Attributes:
        min_scale: Smallest share of a tile's area that the crop takes; None for the protocol's.
        max_scale: Largest share of a tile's area that the crop takes.
        size: Side of the view, as a share of the protocol's image size.
        jitter: Chance of colour jitter.
        brightness: Strength of the jitter's brightness. A factor is uniform in 1 ± strength, but
            not below 0.
        contrast: Strength of the jitter's contrast, as for brightness.
        saturation: Strength of the jitter's saturation, as for brightness.
        hue: Strength of the jitter's hue, in turns of the colour circle; see
            `rscl_bench.views.photometric`.
        grey: Chance of grey.
        blur: Chance of a Gaussian blur.
        blur_sigma: Range of the blur's deviation in pixels, for a protocol of 224 pixels. The
            deviation scales with the protocol's image size, and is the same for small views.
        noise: Chance of Gaussian noise.
        noise_std: Range of the noise's deviation, as shares of the full scale.
        solarise: Chance that all values from half the full scale upwards are inverted.
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
    """How the pixels of one archive are scaled for photometric operations and for the encoder.

    Attributes:
        normalisation: Mean and deviation per band, in the declared unit.
        scale: Full scale of the declared unit.
        rgb: Positions of red, green and blue if these are all bands, else None. One band three
            times is a grey image in red, green and blue.
        selected: The band of the tiles behind each band of a view; None for all bands of the tiles
            in their order.
        channels: Where the bands stand in the encoder's input; None if all images have the same
            channels.
    """

    normalisation: Normalisation
    scale: float
    rgb: tuple[int, int, int] | None
    selected: tuple[int, ...] | None = None
    channels: Channels | None = None

    def to(self, device: torch.device) -> "PixelScaling":
        """Return a copy on a device."""
        return replace(self, normalisation=self.normalisation.to(device))

    def bands_of(self, tiles: Tensor) -> Tensor:
        """Return the bands ``[B, H, W, C]`` of tiles that views show."""
        return tiles if self.selected is None else tiles[..., list(self.selected)]

    def placed(self, images: Tensor) -> Tensor:
        """Return images ``[B, C, H, W]`` as the encoder takes them, NaN in bands that they lack."""
        if self.channels is None:
            return images
        batch, _, height, width = images.shape
        placed = images.new_full((batch, self.channels.count, height, width), torch.nan)
        placed[:, list(self.channels.places)] = images
        return placed


def band_scaling(
    normalisation: Normalisation,
    scale: float,
    bands: Sequence[str],
    views: Sequence[str],
    channels: Channels | None = None,
) -> PixelScaling:
    """Return the pixel scaling of tiles.

    Args:
        normalisation: Mean and deviation of every band of the tiles.
        scale: Full scale of their unit.
        bands: Names of the bands of the tiles, in their order.
        views: Names of the bands of views, in their order; one may repeat.
        channels: Where the bands of views stand in the encoder's input.
    """
    if tuple(views) == tuple(bands):
        return PixelScaling(normalisation, scale, places_of_rgb(bands), channels=channels)
    chosen = [bands.index(name) for name in views]
    of_views = Normalisation(normalisation.mean[chosen], normalisation.std[chosen])
    grey = len(views) == 3 and len(set(views)) == 1
    rgb = (0, 1, 2) if grey else places_of_rgb(views)
    return PixelScaling(of_views, scale, rgb, tuple(chosen))


def places_of_rgb(bands: Sequence[str]) -> tuple[int, int, int] | None:
    """Return the positions of red, green and blue if these are all bands, else None."""
    if sorted(bands) != ["blue", "green", "red"]:
        return None
    return bands.index("red"), bands.index("green"), bands.index("blue")


def view_size(view: View, image_size: int, multiple: int) -> int:
    """Return a view's side in pixels: its share of the image size, rounded to a multiple."""
    return max(multiple, round(view.size * image_size / multiple) * multiple)


def make_view(
    tiles: Tensor,
    view: View,
    size: int,
    image_size: int,
    defaults: Views,
    scaling: PixelScaling,
    generator: torch.Generator,
    host: torch.Generator,
) -> tuple[Tensor, Crops]:
    """Return one view of each tile, and the crops that the views show.

    Args:
        tiles: ``[B, H, W, C]``, raw, in the declared unit.
        view: Declaration of the view.
        size: Side of the view in pixels.
        image_size: Side of the protocol's images in pixels.
        defaults: The protocol's smallest scale and chance of a flip.
        scaling: Pixel scaling of the tiles' archive, on the device of the tiles.
        generator: Source of randomness, on the device of the tiles.
        host: Source of the order of operations, on the CPU; on a CPU the same as ``generator``.

    Returns:
        ``[B, C, size, size]`` float32, normalised, and the crops. C are the encoder's channels,
        NaN where a tile lacks a band.
    """
    count, height, width, _ = tiles.shape
    min_scale = defaults.min_scale if view.min_scale is None else view.min_scale
    flip = defaults.horizontal_flip
    crops = draw_crops(count, height, width, (min_scale, view.max_scale), flip, generator)
    images = resized_crops(scaling.bands_of(tiles), crops, size)
    if view.jitter or view.grey or view.blur or view.noise or view.solarise:
        shares = images.contiguous() / scaling.scale
        images = _recoloured(shares, view, image_size, scaling, generator, host) * scaling.scale
    return scaling.placed(normalised(images, scaling.normalisation)), crops


def whole_view(tiles: Tensor, size: int, scaling: PixelScaling) -> Tensor:
    """Return the views that probes see: whole tiles, resized and not flipped.

    Args:
        tiles: ``[B, H, W, C]``, raw, in the declared unit.
        size: Side of the view in pixels.
        scaling: Pixel scaling of the tiles' archive, on the device of the tiles.

    Returns:
        ``[B, C, size, size]`` float32, normalised.
    """
    count, height, width, _ = tiles.shape
    crops = whole_tiles(count, height, width, tiles.device)
    images = resized_crops(scaling.bands_of(tiles), crops, size)
    return scaling.placed(normalised(images, scaling.normalisation))


def _recoloured(
    images: Tensor,
    view: View,
    image_size: int,
    scaling: PixelScaling,
    generator: torch.Generator,
    host: torch.Generator,
) -> Tensor:
    """Apply photometric operations to images ``[B, C, H, W]``, as shares of the full scale."""
    count = len(images)
    if view.jitter:
        strength = ColourJitter(view.brightness, view.contrast, view.saturation, view.hue)
        changed = jittered(images, strength, scaling.rgb, generator, host)
        images = torch.where(coin(count, view.jitter, generator), changed, images)
    if view.grey:
        changed = greyed(images, scaling.rgb)
        images = torch.where(coin(count, view.grey, generator), changed, images)
    if view.blur:
        low, high = (sigma * image_size / 224 for sigma in view.blur_sigma)
        changed = blurred(images, low, high, generator)
        images = torch.where(coin(count, view.blur, generator), changed, images)
    if view.noise:
        changed = noisy(images, *view.noise_std, generator)
        images = torch.where(coin(count, view.noise, generator), changed, images)
    if view.solarise:
        images = torch.where(coin(count, view.solarise, generator), solarised(images), images)
    return images
