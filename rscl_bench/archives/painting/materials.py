"""Materials of the ground: what tells one from another is texture, and not colour."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

#: Wavelengths in nanometres at which the reflectance of a material is drawn. No red band is above
#: the third, so that the infrared of vegetation does not leak into red.
WAVELENGTHS_NM = (450.0, 550.0, 680.0, 850.0)
#: One brightness level is this share of a material's brightness.
LEVEL_STEP = 0.025
#: Spread of the visible colours of all materials and pictures, as logarithms of the reflectance.
_TONE, _TINT = 0.18, 0.1
_VISIBLE = 0.2


@dataclass(frozen=True)
class Material:
    """What can lie at a pixel.

    The visible colour of a material is drawn anew for every picture, so that no colour gives a
    label away. Brightness is counted in levels of 2.5 %, lengths in canvas pixels.

    Attributes:
        name: Name of the material.
        infrared: Reflectance at 850 nm, between 0 and 1.
        grain: Standard deviation of the brightness from pixel to pixel.
        waves: Amplitude of the waves of brightness: furrows, crests, ridges.
        period: Length of a wave.
        angle: Direction of the waves in radians; 0 for waves along the rows.
        crossed: Whether a second set of waves crosses the first: shrubs, plantations.
        blobs: Standard deviation of the brightness from blob to blob.
    """

    name: str
    infrared: float
    grain: float
    waves: float = 0.0
    period: float = 24.0
    angle: float = 0.0
    crossed: bool = False
    blobs: float = 0.0


MATERIALS = (
    Material("soil", 0.32, 1.0, blobs=12.0),
    Material("grass", 0.40, 3.0),
    Material("field", 0.38, 1.0, waves=16.0, period=24.0),
    Material("chaparral", 0.25, 2.0, waves=18.0, period=22.0, crossed=True),
    Material("trees", 0.42, 3.0),
    Material("sand", 0.44, 1.0, waves=13.0, period=40.0, angle=0.8),
    Material("water", 0.02, 0.5),
    Material("sea", 0.02, 1.0, waves=14.0, period=32.0, angle=1.57),
    Material("pavement", 0.18, 0.5),
    Material("building", 0.25, 0.5),
    Material("building-red", 0.34, 0.5, waves=8.0, period=10.0, angle=1.57),
    Material("building-white", 0.41, 0.5),
    Material("mobile-home", 0.35, 0.5, waves=10.0, period=10.0),
    Material("car", 0.22, 2.0),
    Material("moving-car", 0.30, 2.0),
    Material("airplane", 0.42, 0.5),
    Material("ship", 0.28, 1.0),
    Material("tank", 0.36, 0.5),
    Material("court", 0.16, 0.5, waves=10.0, period=16.0, angle=0.8),
    Material("dock", 0.26, 0.5, waves=12.0, period=12.0, angle=1.57),
    Material("clutter", 0.26, 10.0),
    Material("bridge", 0.24, 0.5),
    Material("human", 0.30, 2.0),
)
ROOFS = ("building", "building-red", "building-white")


@dataclass(frozen=True)
class Look:
    """The exposure that a camera aims at, for all pictures of an archive.

    Attributes:
        middle: Mean brightness, as a share of full scale.
        contrast: Standard deviation of the brightness, as a share of full scale.
    """

    middle: float
    contrast: float


def drawn_colours(
    materials: Sequence[Material], light: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Draw the reflectances of all materials under several lights.

    All materials have the same distribution of visible colours.

    Args:
        materials: M materials.
        light: Number of lights.
        rng: Source of all randomness.

    Returns:
        Reflectances at `WAVELENGTHS_NM`, ``[light * M, 4]``.
    """
    count = len(materials)
    tone = rng.uniform(-_TONE, _TONE, (light, count, 1))
    tint = rng.uniform(-_TINT, _TINT, (light, count, 3)) / 2
    cast = rng.uniform(-_TINT, _TINT, (light, 1, 3)) / 2
    visible = _VISIBLE * np.exp(tone + tint + cast)
    infrared = np.array([material.infrared for material in materials])[None, :, None]
    infrared = infrared * rng.uniform(0.8, 1.2, (light, count, 1))
    return np.concatenate([visible, infrared], axis=2).reshape(light * count, 4)
