"""EuroSAT: ten classes of Sentinel-2 tiles, with the random and the spatial splits."""

from pathlib import Path

import numpy as np

from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.torchgeo.sketches.pictures import REFLECTANCE, picture, write_lines
from rscl_bench.sensor_table import SENSORS, with_bands

#: Bands in the order of the files.
_BANDS = ["B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A"]
_SCENES = {
    "AnnualCrop": ("farmland", 0.4),
    "Forest": ("forest", 0.4),
    "HerbaceousVegetation": ("meadow", 0.4),
    "Highway": ("road", 0.3),
    "Industrial": ("industrial", 0.3),
    "Pasture": ("golf", 0.3),
    "PermanentCrop": ("chaparral", 0.4),
    "Residential": ("residential", 0.3),
    "River": ("river", 0.3),
    "SeaLake": ("beach", 0.4),
}
_COUNTS = {"train": 24, "val": 8, "test": 10}
_FOLDER = Path("ds/images/remote_sensing/otherDatasets/sentinel_2/tif")


def write_eurosat(root: Path, rng: np.random.Generator) -> None:
    """Write 42 tiles of 64 × 64 pixels of each class, and the lists of both kinds of splits."""
    sensor = with_bands(SENSORS["sentinel2-l1c"], _BANDS)
    lists: dict[str, list[str]] = {split: [] for split in _COUNTS}
    for name, scene in _SCENES.items():
        number = 0
        for split, count in _COUNTS.items():
            for _ in range(count):
                number += 1
                pixels = picture(64, scene, sensor, rng, REFLECTANCE)
                write_tiff(root / _FOLDER / name / f"{name}_{number}.tif", pixels)
                lists[split].append(f"{name}_{number}.jpg")
    for split, names in lists.items():
        write_lines(root / f"eurosat-{split}.txt", names)
        write_lines(root / f"eurosat-spatial-{split}.txt", names)
