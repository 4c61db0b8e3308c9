"""Photometric operations on batches of images with any number of bands, all bands kept.

Images are ``[B, C, H, W]`` float32, as shares of the full scale of their unit. With red, green and
blue alone, the operations are torchvision's, by kornia's functions. Hue, saturation and grey mean
nothing beyond the visible; with any other bands

- grey is the mean over bands, in every band;
- saturation blends with that grey;
- hue multiplies every band by a factor of its own, uniform in 1 ± hue, so that the spectrum's
  shape changes as colours do.
"""

from typing import NamedTuple

import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import adjust_hue, solarize
from kornia.filters import gaussian_blur2d
from torch import Tensor

RGB = tuple[int, int, int]


class ColourJitter(NamedTuple):
    """Strengths; a factor is uniform in 1 ± strength, not below 0, and a hue in ± hue turns."""

    brightness: float
    contrast: float
    saturation: float
    hue: float


def coin(count: int, chance: float, generator: torch.Generator) -> Tensor:
    """Return ``[B, 1, 1, 1]`` bool, each true with a chance."""
    drawn = torch.rand(count, generator=generator, device=generator.device)
    return (drawn < chance)[:, None, None, None]


def grey_of(images: Tensor, rgb: RGB | None) -> Tensor:
    """Return one grey band, ``[B, 1, H, W]``: luma (ITU-R BT.601) of RGB, else the mean."""
    if rgb is None:
        return images.mean(dim=1, keepdim=True)
    grey: Tensor = rgb_to_grayscale(images[:, rgb])
    return grey


def greyed(images: Tensor, rgb: RGB | None) -> Tensor:
    """Return images whose bands all are their grey."""
    return grey_of(images, rgb).expand_as(images)


def jittered(
    images: Tensor,
    strength: ColourJitter,
    rgb: RGB | None,
    generator: torch.Generator,
    host: torch.Generator,
) -> Tensor:
    """Return images with brightness, contrast, saturation and hue of their own.

    As torchvision's ``ColorJitter``, but that the order of the four is drawn once for the batch.

    Args:
        images: ``[B, C, H, W]``.
        strength: Of each operation; one of strength 0 is left out.
        rgb: Places of red, green and blue if these are all bands, else None.
        generator: Source of randomness, on the device of the images.
        host: Source of the order, on the CPU; may be ``generator``.

    Returns:
        The same shape, within 0 and 1.
    """
    device, count = generator.device, len(images)
    order = torch.randperm(4, generator=host).tolist()
    draws = 2 * torch.rand(4, count, 1, 1, 1, generator=generator, device=device) - 1
    factors = [(1 + width * draw).clamp(min=0) for width, draw in zip(strength, draws, strict=True)]
    for operation in order:
        if not strength[operation]:
            continue
        if operation == 0:
            images = images * factors[0]
        elif operation == 1:
            mean = grey_of(images, rgb).mean(dim=(2, 3), keepdim=True)
            images = torch.lerp(mean, images, factors[1])
        elif operation == 2:
            images = torch.lerp(grey_of(images, rgb), images, factors[2])
        else:
            images = _hue(images, strength.hue, draws[3], rgb, generator)
        images = images.clamp(0, 1)
    return images


def _hue(
    images: Tensor, strength: float, draw: Tensor, rgb: RGB | None, generator: torch.Generator
) -> Tensor:
    if rgb is None:
        shape = (*images.shape[:2], 1, 1)
        each = 2 * torch.rand(shape, generator=generator, device=generator.device) - 1
        return images * (1 + strength * each)
    turned = adjust_hue(images[:, rgb], 2 * torch.pi * strength * draw.flatten())
    inverse = [rgb.index(place) for place in range(3)]
    return turned[:, inverse]


def blurred(images: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Return images under a Gaussian, each with a deviation uniform in low to high pixels.

    The kernel reaches three of the largest deviations to each side, at least one pixel.
    """
    draw = torch.rand(len(images), 1, generator=generator, device=generator.device)
    sigma = (low + (high - low) * draw).expand(-1, 2).contiguous()
    reach = max(1, round(3 * high))
    result: Tensor = gaussian_blur2d(images, 2 * reach + 1, sigma)
    return result


def noisy(images: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Return images with Gaussian noise, each with a variance uniform in low² to high²."""
    draw = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
    deviation = (low**2 + (high**2 - low**2) * draw).sqrt()
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    return (images + deviation * noise).clamp(0, 1)


def solarised(images: Tensor) -> Tensor:
    """Return images whose values from half the full scale on are inverted."""
    result: Tensor = solarize(images, 0.5)
    return result
