"""Made-up archives of four sensors, for streams whose bands change: 3, 1, 12 and 6 bands.

The archives are `DatasetAdapter` classes with sketches; `dataset_of` names them in a scenario.
"""

from pathlib import Path

import numpy as np

from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.sensors import Band, Sensor

COLOUR = Sensor(
    "made-up-colour",
    (Band("red", 665.0), Band("green", 560.0), Band("blue", 480.0)),
    "8-bit digital number",
    "uint8",
    255.0,
    0.3,
)
THERMAL = Sensor(
    "made-up-thermal",
    (Band("lwir", 11000.0, 3000.0, "thermal"),),
    "8-bit digital number",
    "uint8",
    255.0,
    0.5,
)
SENTINEL2 = Sensor(
    "made-up-sentinel-2",
    (
        Band("coastal", 443.0, 21.0),
        Band("blue", 492.0, 66.0),
        Band("green", 560.0, 36.0),
        Band("red", 665.0, 31.0),
        Band("red-edge1", 704.0, 15.0),
        Band("red-edge2", 741.0, 15.0),
        Band("red-edge3", 783.0, 20.0),
        Band("nir", 833.0, 106.0),
        Band("nir-narrow", 865.0, 21.0),
        Band("water-vapour", 945.0, 20.0),
        Band("swir1", 1614.0, 91.0),
        Band("swir2", 2202.0, 175.0),
    ),
    "reflectance times 10000",
    "uint16",
    10000.0,
    10.0,
)
LANDSAT = Sensor(
    "made-up-landsat",
    (
        Band("blue", 482.0, 60.0),
        Band("green", 561.0, 57.0),
        Band("red", 655.0, 37.0),
        Band("nir", 865.0, 28.0),
        Band("swir1", 1609.0, 85.0),
        Band("swir2", 2201.0, 187.0),
    ),
    "16-bit digital number",
    "uint16",
    65535.0,
    30.0,
)


class MadeUp(DatasetAdapter):
    """Random tiles of 24 pixels in three splits; the number of a tile decides its two labels."""

    classes = ("even", "half")
    splits = ("train", "val", "test")
    source = "the generator of rscl_bench.testing"
    licence = "MIT"
    layout = "SPLIT/NUMBER.npy"

    @classmethod
    def band_names(cls) -> tuple[str, ...]:
        """Return the names of the bands, in the order of the files."""
        return tuple(band.name for band in cls.sensor.bands)

    def _list_files(self) -> list[Path]:
        return sorted((self.root / self.split).glob("*.npy"))

    def _read(self, index: int, with_labels: bool) -> Scene:
        number = int(self.files[index].stem)
        image = np.load(self.files[index], allow_pickle=False)
        return Scene(image, labels=np.array([number % 2, number // 2 % 2], np.uint8))

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        sensor = cls.sensor
        brightest = int(sensor.scale) // (1 + len(sensor.bands) % 4)  # sensors differ in brightness
        for split in cls.splits:
            (root / split).mkdir(parents=True)
            for number in range(20):
                shape = (24, 24, len(sensor.bands))
                pixels = rng.integers(0, brightest, shape, dtype=sensor.dtype)
                pixels[:2, :, 0] //= 1 + number % 2  # not black, so that a probe does not score 1
                pixels[:, :2, -1] //= 1 + number // 2 % 2
                np.save(root / split / f"{number:03d}.npy", pixels)


class Colour(MadeUp):
    """Red, green and blue."""

    name, folder, title, sensor = "made-up-colour", "colour", "Made-up colour", COLOUR


class Thermal(MadeUp):
    """One thermal band."""

    name, folder, title, sensor = "made-up-thermal", "thermal", "Made-up thermal", THERMAL


class Sentinel2(MadeUp):
    """Twelve bands of Sentinel-2."""

    name, folder, title, sensor = "made-up-sentinel-2", "sentinel2", "Made-up S2", SENTINEL2


class Landsat(MadeUp):
    """Six bands of Landsat 8."""

    name, folder, title, sensor = "made-up-landsat", "landsat", "Made-up Landsat", LANDSAT


#: The archives in the order of the stream.
ARCHIVES: tuple[type[MadeUp], ...] = (Colour, Thermal, Sentinel2, Landsat)


def dataset_of(archive: type[MadeUp]) -> str:
    """Return the name of an archive in a scenario: the path of its class."""
    return f"{Path(__file__)}:{archive.__name__}"
