"""USAVars: aerial images of NAIP at 4 m over the United States, with measured numbers as labels."""

from pathlib import Path

import numpy as np

from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.torchgeo.sketches.pictures import BRIGHT, picture, write_lines
from rscl_bench.sensor_table import SENSORS

_SCENES = (
    ("farmland", 0.6),
    ("forest", 0.4),
    ("meadow", 0.5),
    ("river", 0.5),
    ("desert", 0.6),
    ("residential", 0.3),
    ("road", 0.4),
    ("chaparral", 0.6),
)
_COUNTS = {"train": 24, "val": 8, "test": 8}
#: Every table that TorchGeo asks for; it reads the first three.
_TABLES = ("treecover", "elevation", "population", "housing", "income", "roads", "nightlights")


def write_usavars(root: Path, rng: np.random.Generator) -> None:
    """Write 40 images of 256 × 256 pixels, the lists of the splits and seven tables."""
    rows: list[str] = []
    for split, count in _COUNTS.items():
        names = []
        for _ in range(count):
            number = len(rows)
            key = f"{100 + number},{200 + number}"
            names.append(f"tile_{key}.tif")
            pixels = picture(256, _SCENES[number % len(_SCENES)], SENSORS["naip"], rng, BRIGHT)
            write_tiff(root / "uar" / names[-1], pixels, interleave="pixel", compress="deflate")
            rows.append(f'"{key}",{rng.uniform(-120, -70):.4f},{rng.uniform(26, 48):.4f}')
        write_lines(root / f"{split}_split.txt", names)
    for table in _TABLES:
        lines = [f"{row},{rng.uniform(0, 100):.4f}" for row in rows]
        write_lines(root / f"{table}.csv", [f"ID,lon,lat,{table}", *lines])
