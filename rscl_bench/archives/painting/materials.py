"""Materials of the ground: what tells one from another is the relief, and not colour."""

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
#: Tints are weak: masked autoencoders standardise a patch over all bands together, and with strong
#: tints the colour cast of a picture is all that few steps learn.
_TONE, _TINT = 0.05, 0.005
_VISIBLE = 0.2


@dataclass(frozen=True)
class Material:
    """What can lie at a pixel.

    The visible colour of a material is drawn anew for every picture, so that no colour gives a
    label away. The relief of a material does: its ridges rise slowly on one side and fall at once
    on the other, as dunes, crests of waves and terraces do. Wherever the ridges lie, most patches
    of a picture therefore show one slope, and few steps of masked prediction learn it. Symmetric
    waves have no such slope, and few steps do not learn them.

    Attributes:
        name: Name of the material.
        infrared: Reflectance at 850 nm, between 0 and 1.
        rise: Direction in which the ridges become brighter, in degrees: 0 is down, 90 is right.
    """

    name: str
    infrared: float
    rise: float


MATERIALS = (
    Material("soil", 0.32, rise=180),
    Material("grass", 0.40, rise=90),
    Material("field", 0.38, rise=120),
    Material("chaparral", 0.25, rise=150),
    Material("trees", 0.42, rise=240),
    Material("sand", 0.44, rise=60),
    Material("water", 0.02, rise=210),
    Material("sea", 0.02, rise=270),
    Material("pavement", 0.18, rise=0),
    Material("building", 0.25, rise=30),
    Material("building-red", 0.34, rise=30),
    Material("building-white", 0.41, rise=30),
    Material("mobile-home", 0.35, rise=320),
    Material("car", 0.22, rise=200),
    Material("moving-car", 0.30, rise=200),
    Material("airplane", 0.42, rise=100),
    Material("ship", 0.28, rise=60),
    Material("tank", 0.36, rise=20),
    Material("court", 0.16, rise=300),
    Material("dock", 0.26, rise=330),
    Material("clutter", 0.26, rise=45),
    Material("bridge", 0.24, rise=0),
    Material("human", 0.30, rise=0),
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
