"""Photometric operations on batches of images with any number of bands.

Images are ``[B, C, H, W]`` float32, as shares of the full scale of their unit. Operations keep all
bands. If the bands are red, green and blue, the operations are torchvision's, computed by kornia.
Hue, saturation and grey are undefined for other bands. Here they mean:

- Grey sets every band to the mean over bands.
- Saturation blends an image with its grey.
- Hue multiplies every band of every image by a factor, uniform in 1 ± hue, which changes the shape
  of the spectrum.
"""

from typing import NamedTuple

import torch
from kornia.color import rgb_to_grayscale
from kornia.enhance import adjust_hue, solarize
from kornia.filters import gaussian_blur2d
from torch import Tensor

RGB = tuple[int, int, int]


class ColourJitter(NamedTuple):
    """Strengths of colour jitter.

    Factors are uniform in 1 ± strength, but not below 0. A shift of the hue is uniform in ± hue
    turns of the colour circle.
    """

    brightness: float
    contrast: float
    saturation: float
    hue: float


def coin(count: int, chance: float, generator: torch.Generator) -> Tensor:
    """Return ``[B, 1, 1, 1]`` bool; each element is true with probability ``chance``."""
    drawn = torch.rand(count, generator=generator, device=generator.device)
    return (drawn < chance)[:, None, None, None]


def grey_of(images: Tensor, rgb: RGB | None) -> Tensor:
    """Return grey ``[B, 1, H, W]``: the luma of RGB (ITU-R BT.601), or the mean of other bands."""
    if rgb is None:
        return images.mean(dim=1, keepdim=True)
    grey: Tensor = rgb_to_grayscale(images[:, rgb])
    return grey


def greyed(images: Tensor, rgb: RGB | None) -> Tensor:
    """Return images ``[B, C, H, W]`` with every band set to the image's grey."""
    return grey_of(images, rgb).expand_as(images)


def jittered(
    images: Tensor,
    strength: ColourJitter,
    rgb: RGB | None,
    generator: torch.Generator,
    host: torch.Generator,
) -> Tensor:
    """Return images with random brightness, contrast, saturation and hue, drawn for each image.

    The operation is torchvision's ``ColorJitter``, except that the order of the four operations is
    drawn once for the batch.

    Args:
        images: ``[B, C, H, W]``.
        strength: Strength of each operation. An operation of strength 0 is skipped.
        rgb: Positions of red, green and blue if these are all bands, else None.
        generator: Source of the factors, on the device of the images.
        host: Source of the order, on the CPU; may be ``generator``.

    Returns:
        ``[B, C, H, W]``, within 0 and 1.
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
        draws = 2 * torch.rand(shape, generator=generator, device=generator.device) - 1
        return images * (1 + strength * draws)
    turned = adjust_hue(images[:, rgb], 2 * torch.pi * strength * draw.flatten())
    inverse = [rgb.index(band) for band in range(3)]
    return turned[:, inverse]


def blurred(images: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Return images under a Gaussian blur, whose deviation is drawn for each image.

    The kernel extends three times ``high``, and at least one pixel, to each side.

    Args:
        images: ``[B, C, H, W]``.
        low: Smallest deviation in pixels.
        high: Largest deviation in pixels. The draw is uniform.
        generator: Source of randomness, on the device of the images.

    Returns:
        ``[B, C, H, W]``.
    """
    draw = torch.rand(len(images), 1, generator=generator, device=generator.device)
    sigma = (low + (high - low) * draw).expand(-1, 2).contiguous()
    reach = max(1, round(3 * high))
    result: Tensor = gaussian_blur2d(images, 2 * reach + 1, sigma)
    return result


def noisy(images: Tensor, low: float, high: float, generator: torch.Generator) -> Tensor:
    """Return images with Gaussian noise, whose variance is uniform in low² to high² per image."""
    draw = torch.rand(len(images), 1, 1, 1, generator=generator, device=generator.device)
    deviation = (low**2 + (high**2 - low**2) * draw).sqrt()
    noise = torch.randn(images.shape, generator=generator, device=generator.device)
    return (images + deviation * noise).clamp(0, 1)


def solarised(images: Tensor) -> Tensor:
    """Return images with all values from half the full scale upwards inverted."""
    result: Tensor = solarize(images, 0.5)
    return result
