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
