"""Sensors: ordered bands with wavelengths, the unit of pixels and the ground sample distance."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from rscl_bench.errors import SpecError, unknown

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Types of stored pixels.
DTYPES = ("uint8", "uint16")


#: What a band measures: reflected light, emitted heat, or the echo of a radar.
BandKind = Literal["optical", "thermal", "sar"]
_POLARISATIONS = ("vv", "vh", "hh", "hv")


@dataclass(frozen=True)
class Band:
    """One band.

    Attributes:
        name: Name, unique in the sensor. The name of a SAR band has its polarisation: "vv", "vh",
            "hh" or "hv".
        wavelength_nm: Central wavelength in nanometres.
        width_nm: Bandwidth in nanometres, at half maximum; None where it is unknown.
        kind: What the band measures.
    """

    name: str
    wavelength_nm: float
    width_nm: float | None = None
    kind: BandKind = "optical"

    @property
    def polarisation(self) -> str | None:
        """Polarisation of a SAR band, from its name; None for another band, or if unknown."""
        if self.kind != "sar":
            return None
        name = self.name.lower()
        return next((one for one in _POLARISATIONS if one in name), None)


@dataclass(frozen=True)
class Sensor:
    """An ordered set of bands, and the meaning of their pixel values.

    Attributes:
        name: Name of the sensor.
        bands: The bands, in the order of the files.
        unit: Unit of a pixel value, in the singular, such as ``"8-bit digital number"``.
        dtype: NumPy dtype of the files, ``"uint8"`` or ``"uint16"``.
        scale: Pixel value of full brightness.
        gsd_m: Ground sample distance in metres; None if it varies from image to image.
        amplitude: How amplitudes, such as those of a radar, are read: ``"linear"`` keeps the pixel
            values of the files, ``"db"`` turns them into decibels; see `in_unit`. Left out of the
            key of a tile store when ``"linear"``.

    Raises:
        SpecError: If tiles of this sensor could not be stored or normalised.
    """

    name: str
    bands: tuple[Band, ...]
    unit: str
    dtype: str
    scale: float
    gsd_m: float | None
    amplitude: Literal["linear", "db"] = "linear"

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise SpecError(
                f"Sensor {self.name} has pixels of type {self.dtype!r}, but tiles are stored as "
                f"{' or '.join(DTYPES)}; declare one of these and convert the pixels when the "
                "dataset reads them."
            )
        if self.amplitude == "db" and self.scale <= 1:
            raise SpecError(
                f"Sensor {self.name} has amplitudes in decibels and the scale {self.scale}; give a "
                "scale above 1, or amplitude = 'linear'."
            )
        names = [band.name for band in self.bands]
        if not names or len(set(names)) < len(names):
            raise SpecError(
                f"Sensor {self.name} has the bands {names}; name at least one, and each once."
            )
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise SpecError(
                f"Sensor {self.name} has the scale {self.scale}; give the pixel value of full "
                "brightness, a finite number above 0."
            )

    def in_unit(self, pixels: "NDArray[Any]") -> "NDArray[Any]":
        """Return pixel values as the sensor declares them, in the dtype of the files.

        Decibels below full scale are ``20 log10(v / scale)`` of an amplitude ``v``. Amplitudes of
        0 and 1 give the least value, 0, full scale gives ``scale``, and the values between rise
        by equal steps for equal decibels: ``scale * log(max(v, 1)) / log(scale)``, rounded.

        Args:
            pixels: Pixels of a file, of any shape, in ``dtype``.
        """
        if self.amplitude == "linear":
            return pixels
        import numpy as np  # commands that read no pixels start without it

        values = np.arange(np.iinfo(self.dtype).max + 1)
        steps = self.scale * np.log(np.clip(values, 1, self.scale)) / np.log(self.scale)
        converted: NDArray[Any] = np.rint(steps).astype(self.dtype)[pixels]
        return converted

    def described_bands(self) -> str:
        """Return names and central wavelengths of the bands, in the order of the files."""
        return ", ".join(f"{band.name} ({band.wavelength_nm:g} nm)" for band in self.bands)

    def indices(self, names: tuple[str, ...]) -> list[int]:
        """Return the positions of named bands in the files of this sensor.

        Args:
            names: Names of bands, in the order of the result.

        Returns:
            One index per name.

        Raises:
            SpecError: If a band is unknown or named twice, or if no band is named.
        """
        own_names = [band.name for band in self.bands]
        if not names or len(set(names)) != len(names):
            raise SpecError(f"Bands of {self.name} must be named, each once; got {list(names)}.")
        for name in names:
            if name not in own_names:
                raise unknown(f"band of sensor {self.name}", name, own_names)
        return [own_names.index(name) for name in names]


_RED, _GREEN, _BLUE = Band("red", 665.0), Band("green", 560.0), Band("blue", 480.0)
_NIR = Band("nir", 840.0)

#: Aerial and drone cameras. The wavelengths are nominal, because the archives state none.
RGB8 = Sensor("rgb8", (_RED, _GREEN, _BLUE), "8-bit digital number", "uint8", 255.0, None)

#: UAVid: DJI drone cameras at about 50 m. The view is oblique, so the ground sample distance
#: varies within a frame.
UAVID_RGB = Sensor("uavid-rgb", (_RED, _GREEN, _BLUE), "8-bit digital number", "uint8", 255.0, None)

#: WorldView-3: visible and near-infrared bands, pan-sharpened to about 0.3 m. The sensor quantises
#: to 11 bits; the archive stores them in 16.
WORLDVIEW3 = Sensor(
    "worldview3",
    (
        Band("coastal", 425.0),
        Band("blue", 480.0),
        Band("green", 545.0),
        Band("yellow", 605.0),
        Band("red", 660.0),
        Band("red-edge", 725.0),
        Band("nir1", 832.5),
        Band("nir2", 950.0),
    ),
    "11-bit digital number",
    "uint16",
    2047.0,
    0.31,
)

#: ISPRS Potsdam, ``4_Ortho_RGBIR``: true orthophotos at 5 cm.
POTSDAM_RGBIR = Sensor(
    "potsdam-rgbir", (_RED, _GREEN, _BLUE, _NIR), "8-bit digital number", "uint8", 255.0, 0.05
)

#: TreeSatAI aerial: colour-infrared orthophotos at 20 cm, infrared first and red last.
TREESATAI_AERIAL = Sensor(
    "treesatai-aerial", (_NIR, _GREEN, _BLUE, _RED), "8-bit digital number", "uint8", 255.0, 0.2
)

#: UC Merced: USGS aerial orthoimagery with pixels of one foot.
UCMERCED_RGB = Sensor(
    "ucmerced-rgb", (_RED, _GREEN, _BLUE), "8-bit digital number", "uint8", 255.0, 0.3
)

#: AID and RSSCN7: Google Earth images, at 0.5 to 8 m in AID and at four scales in RSSCN7.
GOOGLE_EARTH_RGB = Sensor(
    "google-earth-rgb", (_RED, _GREEN, _BLUE), "8-bit digital number", "uint8", 255.0, None
)

#: WorldView and GeoEye satellites, colours as published after a disaster, at about 0.5 m.
WORLDVIEW_RGB = Sensor(
    "worldview-rgb", (_RED, _GREEN, _BLUE), "8-bit digital number", "uint8", 255.0, 0.5
)

#: HIT-UAV: longwave infrared of a drone's camera, as the camera's grey values and not as
#: temperatures. The archive does not state the wavelengths; 8 to 14 µm is the window of such
#: cameras.
HIT_UAV_THERMAL = Sensor(
    "hit-uav-thermal",
    (Band("thermal", 11_000.0, 6_000.0, "thermal"),),
    "8-bit grey value",
    "uint8",
    255.0,
    None,
)

#: MSTAR: magnitudes of an airborne X-band radar in spotlight mode, 0.3 m of resolution in pixels
#: of 0.2 m. The band's wavelength is that of 9.6 GHz.
MSTAR_SAR = Sensor(
    "mstar-sar",
    (Band("hh", 31_200_000.0, kind="sar"),),
    "8-bit magnitude",
    "uint8",
    255.0,
    0.2,
)

#: The same radar with magnitudes in decibels.
MSTAR_SAR_DB = replace(MSTAR_SAR, name="mstar-sar-db", unit="1/255 of 48.1 decibel", amplitude="db")
