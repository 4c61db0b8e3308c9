"""The dataset skeleton."""

from pathlib import Path

import numpy as np
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.files import write_tiff
from rscl_bench.sensors import Band, Sensor

SENSOR = Sensor(
    name="skeleton-camera",
    bands=(  # in the order of the files: name, central wavelength and width in nm
        Band("blue", 490.0, 65.0),
        Band("green", 560.0, 35.0),
        Band("red", 665.0, 30.0),
        Band("nir", 842.0, 115.0),
    ),
    unit="reflectance times 10,000",
    dtype="uint16",  # or uint8
    scale=10_000.0,  # pixel value of full brightness
    gsd_m=10.0,
)


class Skeleton(DatasetAdapter):
    """Tiles in one folder for each class."""

    name = "skeleton"
    folder = "skeleton"  # below the data root
    title = "Skeleton"
    sensor = SENSOR
    classes = ("field", "forest", "water")
    splits = ("train", "val", "test")
    source = "the page where the archive can be fetched"
    licence = "CC BY 4.0"
    layout = "SPLIT/CLASS/NUMBER.tif"

    def _list_files(self) -> list[Path]:
        """List the images of a split, in an order that never changes."""
        return sorted((self.root / self.split).glob("*/*.tif"))

    def _read(self, index: int, with_labels: bool) -> Scene:
        """Read an image as it is stored, all bands, and its labels for probes."""
        path = self.files[index]
        labels = np.array([path.parent.name == name for name in self.classes], np.uint8)
        return Scene(self.read_image(path), labels=labels)

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Write a small made-up archive in the same layout, for trials."""
        brightness = {"field": 2500, "forest": 1200, "water": 400}
        for split in cls.splits:
            for number in range(24):
                scene_class = cls.classes[number % len(cls.classes)]
                noise = rng.integers(0, 800, (64, 64, len(cls.sensor.bands)), np.uint16)
                pixels = noise + np.uint16(brightness[scene_class])
                write_tiff(root / split / scene_class / f"{number:03d}.tif", pixels)
