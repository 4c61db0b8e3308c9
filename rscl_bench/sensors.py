"""Sensors: ordered bands with wavelength, unit and ground sample distance."""

from dataclasses import dataclass

from rscl_bench.errors import SpecError, unknown


@dataclass(frozen=True)
class Band:
    """One band: its name and its central wavelength in nanometres."""

    name: str
    wavelength_nm: float


@dataclass(frozen=True)
class Sensor:
    """An ordered set of bands.

    Attributes:
        name: The sensor's name.
        bands: The bands, in the order of the archive's files.
        unit: What a pixel value is, for instance ``"8-bit digital number"``.
        dtype: NumPy name of the files' type, ``"uint8"`` or ``"uint16"``.
        scale: Value that stands for full brightness in the declared unit.
        gsd_m: Ground sample distance in metres; None where it varies from image to image.
    """

    name: str
    bands: tuple[Band, ...]
    unit: str
    dtype: str
    scale: float
    gsd_m: float | None

    def indices(self, names: tuple[str, ...]) -> list[int]:
        """Return the positions of the named bands in this sensor's files.

        Args:
            names: Band names, in the order that is wanted.

        Returns:
            One index per name.

        Raises:
            SpecError: If a band is unknown, named twice, or none is named.
        """
        known = [band.name for band in self.bands]
        if not names or len(set(names)) != len(names):
            raise SpecError(f"Bands of {self.name} must be named, each once; got {list(names)}.")
        for name in names:
            if name not in known:
                raise unknown(f"band of sensor {self.name}", name, known)
        return [known.index(name) for name in names]


_RED, _GREEN, _BLUE = Band("red", 665.0), Band("green", 560.0), Band("blue", 480.0)
_NIR = Band("nir", 840.0)

#: Aerial and drone cameras: the wavelengths are nominal, the archives state none.
RGB8 = Sensor("rgb8", (_RED, _GREEN, _BLUE), "8-bit digital number", "uint8", 255.0, None)

#: UAVid: DJI drone cameras at about 50 m, oblique, so that the ground distance varies in a frame.
UAVID_RGB = Sensor("uavid-rgb", (_RED, _GREEN, _BLUE), "8-bit digital number", "uint8", 255.0, None)

#: WorldView-3's visible and near-infrared bands, sharpened with the panchromatic one to about
#: 0.3 m. The sensor quantises to 11 bits, which the archive keeps in 16.
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

#: UC Merced: USGS aerial orthoimagery, one foot.
UCMERCED_RGB = Sensor(
    "ucmerced-rgb", (_RED, _GREEN, _BLUE), "8-bit digital number", "uint8", 255.0, 0.3
)

#: AID and RSSCN7: Google Earth images, 0.5 to 8 m in AID and four scales in RSSCN7.
GOOGLE_EARTH_RGB = Sensor(
    "google-earth-rgb", (_RED, _GREEN, _BLUE), "8-bit digital number", "uint8", 255.0, None
)
