"""AID: aerial scenes of 30 classes from Google Earth.

The layout was checked on a public copy: ``AID/<Class>/<class>_<number>.jpg``, numbered from 1.
"""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from rscl_bench import sensors
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.scene_folders import SceneFoldersAdapter
from rscl_bench.errors import unknown
from rscl_bench.spec import Spec

_SKETCH_SCENES = {
    "Airport": ("airport", 0.5),
    "BareLand": ("desert", 0.5),
    "BaseballField": ("baseball", 0.6),
    "Beach": ("beach", 0.5),
    "Bridge": ("river", 0.6),
    "Center": ("industrial", 0.7),
    "Church": ("courts", 0.5),
    "Commercial": ("industrial", 0.5),
    "DenseResidential": ("residential", 0.4),
    "Desert": ("desert", 0.5),
    "Farmland": ("farmland", 0.6),
    "Forest": ("forest", 0.5),
    "Industrial": ("industrial", 0.6),
    "Meadow": ("meadow", 0.5),
    "MediumResidential": ("residential", 0.6),
    "Mountain": ("chaparral", 0.5),
    "Park": ("golf", 0.5),
    "Parking": ("parking", 0.6),
    "Playground": ("courts", 0.6),
    "Pond": ("pond", 0.5),
    "Port": ("harbor", 0.5),
    "RailwayStation": ("road", 0.5),
    "Resort": ("pond", 0.6),
    "River": ("river", 0.5),
    "School": ("courts", 0.4),
    "SparseResidential": ("residential", 0.8),
    "Square": ("parking", 0.5),
    "Stadium": ("baseball", 0.8),
    "StorageTanks": ("tanks", 0.5),
    "Viaduct": ("road", 0.6),
}
CLASSES = tuple(_SKETCH_SCENES)
#: Where the numbers of a class are cut into training, validation and test images, as shares.
_CUTS = {"scenes-train": (0.0, 0.6), "scenes-val": (0.6, 0.75), "scenes-test": (0.75, 1.0)}
#: Share of a class that is left out after a cut: images with near numbers may show one place.
_GAP = 0.02


class AIDOptions(Spec):
    """The options of AID."""

    classes: Annotated[
        tuple[str, ...], Field(min_length=1, description="classes to read; all 30 by default")
    ] = CLASSES


class AIDAdapter(SceneFoldersAdapter):
    """AID's images with their scene class.

    The split ``train`` is the whole archive. The splits ``scenes-train``, ``scenes-val`` and
    ``scenes-test`` divide it for a probe of its scene classes, by the numbers of the images in each
    class.
    """

    name = "aid"
    folder = "aid"
    title = "AID (Aerial Image Dataset)"
    sensor = sensors.GOOGLE_EARTH_RGB
    classes = CLASSES
    splits: ClassVar[tuple[str, ...]] = ("train", *_CUTS)
    source = "https://captain-whu.github.io/AID/"
    licence = "research use; images from Google Earth"
    layout = "AID/Airport/airport_1.jpg and so on, 30 folders"
    images = "10,000 JPEGs of 600 × 600 pixels at 0.5 to 8 m, 220 to 420 of each class"
    notes = (
        "The images of a class are numbered from 1; a missing number is refused. The total number "
        "of images is not checked, because smaller and downscaled copies are in use.",
        "`train` is the whole archive. `scenes-train` is the first 60 % of the numbers of each "
        "class, `scenes-val` the next 15 % and `scenes-test` the rest. 2 % after a cut, at least "
        "one image, are left out: images with near numbers may overlap.",
    )
    citations = ("https://doi.org/10.1109/TGRS.2017.2685945",)
    Options = AIDOptions
    image_folder = "AID"
    sketch_count = 8
    sketch_side = 128
    sketch_look = Look(middle=0.48, contrast=0.12)
    sketch_scenes = _SKETCH_SCENES

    def _selected_classes(self) -> tuple[str, ...]:
        selected: tuple[str, ...] = self.options.classes  # type: ignore[attr-defined]
        for name in selected:
            if name not in self.classes:
                raise unknown(f"class of {self.name}", name, self.classes)
        return tuple(name for name in self.classes if name in selected)

    def _of_split(self, files: list[Path]) -> list[Path]:
        if self.split == "train":
            return files
        start, end = (int(share * len(files)) for share in _CUTS[self.split])
        return files[start + (max(1, round(_GAP * len(files))) if start else 0) : end]

    @staticmethod
    def _file_name(scene_class: str, number: int) -> str:
        return f"{scene_class.lower()}_{number}.jpg"
