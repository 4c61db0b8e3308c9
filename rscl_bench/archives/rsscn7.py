"""RSSCN7: aerial scenes of 7 classes from Google Earth, at four scales.

Layout checked on a public copy: ``RSSCN7/aGrass/a001.jpg`` to ``a400.jpg``, and so on to
``gParking``.
"""

from rscl_bench import sensors
from rscl_bench.archives.painting import Look
from rscl_bench.archives.scene_folders import SceneFolders, SceneFoldersAdapter

_CLASSES = (
    "aGrass",
    "bField",
    "cIndustry",
    "dRiverLake",
    "eForest",
    "fResident",
    "gParking",
)


class RSSCN7(SceneFolders):
    """RSSCN7 dataset.

    The `RSSCN7 <https://github.com/palewithout/RSSCN7>`__ dataset is for scene classification.

    Dataset features:

    * 2,800 RGB images of 400 x 400 pixels, from Google Earth at four scales
    * 7 scene classes of 400 images

    Dataset format:

    * images are three-channel JPEGs, ``RSSCN7/aGrass/a001.jpg``

    If you use this dataset in your research, please cite the following paper:

    * https://doi.org/10.1109/LGRS.2015.2475299
    """

    base_dir = "RSSCN7"
    classes = _CLASSES


class RSSCN7Adapter(SceneFoldersAdapter):
    """RSSCN7's scenes, read through `RSSCN7`; one split ``train`` of all."""

    name = "rsscn7"
    folder = "rsscn7"
    title = "RSSCN7"
    sensor = sensors.GOOGLE_EARTH_RGB
    classes = _CLASSES
    source = "https://github.com/palewithout/RSSCN7"
    licence = "research use; images from Google Earth"
    layout = "RSSCN7/aGrass/a001.jpg and so on, 7 folders of 400"
    dataset_type = RSSCN7
    images_per_class = 400
    sketch_count = 12
    sketch_side = 128
    sketch_look = Look(gain=2.2, haze=0.04)

    def _count(self, found: int) -> int:
        return self.images_per_class

    @staticmethod
    def _file_name(scene_class: str, number: int) -> str:
        return f"{scene_class[0]}{number:03d}.jpg"

    sketch_scenes = {  # noqa: RUF012  # a ClassVar in the base
        "aGrass": ("meadow", 0.6),
        "bField": ("farmland", 0.7),
        "cIndustry": ("industrial", 0.6),
        "dRiverLake": ("river", 0.7),
        "eForest": ("forest", 0.6),
        "fResident": ("residential", 0.6),
        "gParking": ("parking", 0.7),
    }
