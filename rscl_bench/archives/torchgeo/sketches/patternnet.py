"""PatternNet: 38 classes of scenes from Google Earth."""

from pathlib import Path

import numpy as np

from rscl_bench.archives.files import write_picture
from rscl_bench.archives.torchgeo.sketches.pictures import picture
from rscl_bench.sensors import GOOGLE_EARTH_RGB

_SCENES = {
    "airplane": ("airport", 1.0),
    "baseball_field": ("baseball", 0.9),
    "basketball_court": ("courts", 0.7),
    "beach": ("beach", 1.0),
    "bridge": ("river", 0.7),
    "cemetery": ("mobile-homes", 0.4),
    "chaparral": ("chaparral", 1.0),
    "christmas_tree_farm": ("forest", 0.4),
    "closed_road": ("road", 0.6),
    "coastal_mansion": ("beach", 0.6),
    "crosswalk": ("road", 1.0),
    "dense_residential": ("residential", 0.6),
    "ferry_terminal": ("harbor", 0.6),
    "football_field": ("golf", 1.0),
    "forest": ("forest", 1.0),
    "freeway": ("road", 0.8),
    "golf_course": ("golf", 0.7),
    "harbor": ("harbor", 1.0),
    "intersection": ("road", 0.7),
    "mobile_home_park": ("mobile-homes", 0.9),
    "nursing_home": ("industrial", 0.6),
    "oil_gas_field": ("desert", 0.6),
    "oil_well": ("desert", 1.0),
    "overpass": ("road", 0.9),
    "parking_lot": ("parking", 0.8),
    "parking_space": ("parking", 1.2),
    "railway": ("runway", 0.5),
    "river": ("river", 1.0),
    "runway": ("runway", 1.0),
    "runway_marking": ("runway", 1.3),
    "shipping_yard": ("industrial", 0.8),
    "solar_panel": ("parking", 0.6),
    "sparse_residential": ("residential", 1.0),
    "storage_tank": ("tanks", 0.9),
    "swimming_pool": ("pond", 0.6),
    "tennis_court": ("courts", 1.0),
    "transformer_station": ("tanks", 0.5),
    "wastewater_treatment_plant": ("pond", 1.0),
}
_COUNT = 7


def write_patternnet(root: Path, rng: np.random.Generator) -> None:
    """Write 7 images of 128 × 128 pixels of each class."""
    for name, scene in _SCENES.items():
        for number in range(1, _COUNT + 1):
            path = (
                root / "PatternNet" / "images" / name / f"{name.replace('_', '')}{number:03d}.jpg"
            )
            write_picture(path, picture(128, scene, GOOGLE_EARTH_RGB, rng), quality=90)
