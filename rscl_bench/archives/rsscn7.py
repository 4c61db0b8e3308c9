"""RSSCN7: aerial scenes of 7 classes from Google Earth, at four scales.

The layout was checked on a public copy: ``RSSCN7/aGrass/a001.jpg`` to ``a400.jpg``, and so on to
``gParking``.
"""

from rscl_bench import sensors
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.scene_folders import SceneFoldersAdapter

_SKETCH_SCENES = {
    "aGrass": ("meadow", 0.6),
    "bField": ("farmland", 0.7),
    "cIndustry": ("industrial", 0.6),
    "dRiverLake": ("river", 0.7),
    "eForest": ("forest", 0.6),
    "fResident": ("residential", 0.6),
    "gParking": ("parking", 0.7),
}


class RSSCN7Adapter(SceneFoldersAdapter):
    """RSSCN7's images with their scene class; the one split ``train`` is the whole archive."""

    name = "rsscn7"
    folder = "rsscn7"
    title = "RSSCN7"
    sensor = sensors.GOOGLE_EARTH_RGB
    classes = tuple(_SKETCH_SCENES)
    source = "https://github.com/palewithout/RSSCN7"
    licence = "research use; images from Google Earth"
    layout = "RSSCN7/aGrass/a001.jpg and so on, 7 folders of 400"
    images = "2,800 JPEGs of 400 × 400 pixels at four scales, 400 of each class"
    citations = ("https://doi.org/10.1109/LGRS.2015.2475299",)
    image_folder = "RSSCN7"
    images_per_class = 400
    sketch_count = 12
    sketch_side = 128
    sketch_look = Look(middle=0.42, contrast=0.14)
    sketch_scenes = _SKETCH_SCENES

    @staticmethod
    def _file_name(scene_class: str, number: int) -> str:
        return f"{scene_class[0]}{number:03d}.jpg"
