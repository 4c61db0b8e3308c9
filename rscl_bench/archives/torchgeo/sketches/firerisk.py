"""FireRisk: aerial images of NAIP at 1 m in seven classes of fire risk."""

from pathlib import Path

import numpy as np

from rscl_bench.archives.files import write_picture
from rscl_bench.archives.torchgeo.sketches.pictures import picture
from rscl_bench.sensors import RGB8

_SCENES = {
    "High": ("chaparral", 1.0),
    "Low": ("meadow", 0.9),
    "Moderate": ("farmland", 0.9),
    "Non-burnable": ("residential", 0.9),
    "Very_High": ("forest", 0.9),
    "Very_Low": ("desert", 1.0),
    "Water": ("pond", 1.0),
}
_COUNTS = {"train": 6, "val": 4}


def write_firerisk(root: Path, rng: np.random.Generator) -> None:
    """Write 10 images of 128 × 128 pixels of each class, a quarter of the real sides' product."""
    number = 0
    for split, count in _COUNTS.items():
        for name, scene in _SCENES.items():
            for _ in range(count):
                number += 1
                place = f"{rng.uniform(-120, -70):.6f}_{rng.uniform(26, 48):.6f}"
                path = root / "FireRisk" / split / name / f"{27_000_000 + number}_4_{place}.png"
                write_picture(path, picture(128, scene, RGB8, rng))
