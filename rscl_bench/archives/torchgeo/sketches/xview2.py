"""xView2: satellite images before and after disasters, with masks of damage."""

from pathlib import Path

import numpy as np

from rscl_bench.archives.files import write_picture
from rscl_bench.archives.torchgeo.sketches.disasters import damage, debris, seen, town

EVENTS = (
    "guatemala-volcano",
    "hurricane-florence",
    "hurricane-harvey",
    "hurricane-matthew",
    "hurricane-michael",
    "mexico-earthquake",
    "midwest-flooding",
    "palu-tsunami",
    "santa-rosa-wildfire",
    "socal-fire",
)
_COUNTS = {"train": 6, "test": 2}


def write_xview2(root: Path, rng: np.random.Generator) -> None:
    """Write 8 pairs of 256 × 256 pixels of each event, a sixteenth of the real size."""
    number = 0
    for split, count in _COUNTS.items():
        for event in EVENTS:
            for _ in range(count):
                _write_pair(root / split, f"{event}_{number:08d}", rng)
                number += 1


def _write_pair(folder: Path, name: str, rng: np.random.Generator) -> None:
    canvas, standing = town(rng)
    grade = damage(standing, 4, rng)
    before, after = seen(canvas), debris(seen(canvas), grade, rng)
    for when, pixels, mask in (
        ("pre", before, standing.astype(np.uint8)),
        ("post", after, grade),
    ):
        write_picture(folder / "images" / f"{name}_{when}_disaster.png", pixels)
        write_picture(folder / "targets" / f"{name}_{when}_disaster_target.png", mask)
