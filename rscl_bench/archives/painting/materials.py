"""Materials of the ground, and the digital numbers that a sensor gives for them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench.sensors import Sensor

#: Wavelengths in nanometres at which the reflectance of a material is given.
WAVELENGTHS_NM = (450.0, 550.0, 650.0, 850.0)
#: Number of brightness levels of a material.
LEVELS = 64
#: The level at which a material has the brightness of its reflectance.
MIDDLE_LEVEL = LEVELS // 2
_LEVEL_STEP = 0.025


@dataclass(frozen=True)
class Material:
    """What can lie at a pixel.

    Attributes:
        name: Name of the material.
        reflectance: Reflectance at the wavelengths of ``WAVELENGTHS_NM``, between 0 and 1.
        grain: Standard deviation of the brightness from pixel to pixel, in levels of 2.5 %.
        stripes: Amplitude of the brightness stripes, in levels of 2.5 %.
    """

    name: str
    reflectance: tuple[float, float, float, float]
    grain: float
    stripes: float = 0.0


MATERIALS = (
    Material("soil", (0.10, 0.16, 0.24, 0.32), 3.0),
    Material("grass", (0.05, 0.12, 0.07, 0.40), 2.5),
    Material("field", (0.06, 0.14, 0.11, 0.38), 2.0, 8.0),
    Material("chaparral", (0.07, 0.11, 0.12, 0.25), 9.0),
    Material("trees", (0.03, 0.07, 0.04, 0.42), 6.0),
    Material("sand", (0.24, 0.32, 0.38, 0.44), 1.5),
    Material("water", (0.08, 0.09, 0.06, 0.02), 1.0),
    Material("sea", (0.11, 0.10, 0.05, 0.02), 2.0, 5.0),
    Material("pavement", (0.14, 0.15, 0.16, 0.18), 1.5),
    Material("building", (0.20, 0.21, 0.22, 0.25), 1.0, 2.0),
    Material("building-red", (0.10, 0.14, 0.28, 0.34), 1.5, 3.0),
    Material("building-white", (0.36, 0.38, 0.39, 0.41), 1.0),
    Material("mobile-home", (0.32, 0.33, 0.32, 0.35), 1.0, 4.0),
    Material("car", (0.34, 0.27, 0.22, 0.22), 5.0),
    Material("moving-car", (0.16, 0.22, 0.36, 0.30), 4.0),
    Material("airplane", (0.38, 0.40, 0.41, 0.42), 1.0),
    Material("ship", (0.34, 0.33, 0.30, 0.28), 3.0),
    Material("tank", (0.39, 0.39, 0.36, 0.36), 1.0),
    Material("court", (0.16, 0.20, 0.12, 0.16), 1.0),
    Material("dock", (0.18, 0.20, 0.22, 0.26), 1.5, 5.0),
    Material("clutter", (0.18, 0.14, 0.20, 0.26), 10.0),
    Material("bridge", (0.22, 0.23, 0.24, 0.26), 1.5),
    Material("human", (0.08, 0.06, 0.30, 0.30), 4.0),
)
ROOFS = ("building", "building-red", "building-white")


@dataclass(frozen=True)
class Look:
    """Brightness and haze that camera and season give to all pictures of an archive.

    Attributes:
        gain: Digital numbers per reflectance, as a share of full scale.
        haze: Brightness that the air adds at 480 nm, as a share of full scale.
    """

    gain: float
    haze: float


def digital_numbers(materials: Sequence[Material], sensor: Sensor, look: Look) -> NDArray[Any]:
    """Return the digital numbers of all materials at all levels.

    Args:
        materials: M materials.
        sensor: The sensor, with C bands.
        look: Gain and haze.

    Returns:
        Digital numbers, ``[M, LEVELS, C]``, in the sensor's dtype.
    """
    wavelengths = [band.wavelength_nm for band in sensor.bands]
    reflectance = np.array(
        [np.interp(wavelengths, WAVELENGTHS_NM, m.reflectance) for m in materials]
    )
    light = 1.0 + _LEVEL_STEP * (np.arange(LEVELS) - MIDDLE_LEVEL)
    air = look.haze * np.square(480.0 / np.array(wavelengths))
    shares = look.gain * reflectance[:, None, :] * light[None, :, None] + air
    numbers: NDArray[Any] = np.rint(np.clip(shares, 0.0, 1.0) * sensor.scale).astype(sensor.dtype)
    return numbers
