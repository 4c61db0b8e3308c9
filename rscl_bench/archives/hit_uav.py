"""HIT-UAV: thermal frames of a drone, with boxes around persons and vehicles (Suo et al. 2023).

The layout ``normal_xml`` was checked on the publisher's repository, of which all 2,898 frames were
read: ``JPEGImages``, one XML of Pascal VOC for each frame in ``Annotations``, and the lists
``train.txt``, ``val.txt`` and ``test.txt`` in ``ImageSets/Main``. A frame's name is
``TIME_HEIGHT_ANGLE_WEATHER_NUMBER``: 0 or 1 for day or night, the height in metres, the angle of
the camera in degrees, 0, and a number that counts the sampled frames of all flights in order.
"""

import re
from itertools import islice, pairwise
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from rscl_bench import sensors
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.files import write_picture
from rscl_bench.archives.lists import read_names, read_text
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.painting.scenes import SCENES
from rscl_bench.errors import ArchiveError

IMAGE_FOLDER = "normal_xml/JPEGImages"
ANNOTATION_FOLDER = "normal_xml/Annotations"
LIST_FOLDER = "normal_xml/ImageSets/Main"
#: Class of boxes around what the annotators could not name; it counts for no class.
_UNNAMED = "DontCare"
_NAME = re.compile(r"[01]_[0-9]+_[0-9]+_[0-9]+_(?P<number>[0-9]+)")
#: Split that is a published list, to the list.
_OFFICIAL = {"official-train": "train", "official-val": "val", "official-test": "test"}
#: First and last frame number of each part of ``val`` and ``test``; all others are of ``train``.
#: Every part is whole flights, that is, frames of one height and time of day in a row, over ground
#: that no flight of another split shows.
_PARTS = (
    (0, 726, "test"),  # by night, 60 m, a running track
    (4086, 5311, "val"),  # by night, 60 to 100 m
    (8067, 8562, "test"),  # by day, 100 and 110 m
    (9446, 9883, "test"),  # by day, 120 and 130 m
)
#: The first flight has ten times the frames of others, all but alike. Every third number is read.
_DENSE, _STEP = range(727), 3
_LOOK = Look(middle=0.4, contrast=0.12)
_SKETCH_FRAMES = {"train": 60, "val": 24, "test": 30}
#: Class to the material and the size that its objects have in a sketch.
_SKETCH_OBJECTS = {
    "Person": ("human", (2, 3)),
    "Car": ("car", (6, 8)),
    "Bicycle": ("tank", (3, 4)),
    "OtherVehicle": ("mobile-home", (12, 16)),
}


class HITUAVAdapter(DatasetAdapter):
    """Thermal frames with the classes of the objects in them, split by flight."""

    name = "hit-uav"
    folder = "hit_uav"
    title = "HIT-UAV (thermal infrared from a drone)"
    sensor = sensors.HIT_UAV_THERMAL
    classes = ("Person", "Car", "Bicycle", "OtherVehicle")
    splits = ("train", "val", "test", *_OFFICIAL)
    formats = ("JPEG",)
    source = "https://github.com/suojiashun/HIT-UAV-Infrared-Thermal-Dataset"
    licence = "CC BY 4.0"
    layout = (
        "normal_xml/JPEGImages/0_100_30_0_03280.jpg and so on, normal_xml/Annotations/*.xml and "
        "normal_xml/ImageSets/Main/train.txt, val.txt and test.txt"
    )
    images = "2,898 thermal JPEGs of 640 × 512 pixels; smaller copies are read too"
    notes = (
        "A label says that an object of the class is in the frame. `DontCare` boxes, which the "
        "annotators could not name, count for no class; a frame may have no label at all.",
        "`train`, `val` and `test` are whole flights over different ground, because frames of one "
        "flight are near-copies of each other. Of the first flight, a fifth of all frames, `test` "
        "has every third number. `official-train`, `official-val` and `official-test` are the "
        "published lists, which were drawn at random from all frames.",
        "Every frame of the lists must be there, and no other. The total is not checked, because "
        "smaller copies are in use.",
    )
    citations = ("https://doi.org/10.1038/s41597-023-02066-6",)

    def _list_files(self) -> list[Path]:
        names = {part: self._listed_names(part) for part in _OFFICIAL.values()}
        every = sorted(name for part in names.values() for name in part)
        twice = next((a for a, b in pairwise(every) if a == b), None)
        if twice is not None:
            raise ArchiveError(
                f"{twice} stands in two lists of {self.root / LIST_FOLDER}; delete it from one."
            )
        images = self._require_pictures(self.root / IMAGE_FOLDER, [f"{name}.jpg" for name in every])
        selected = set(self._selected(names))
        files = [path for path in images if path.stem in selected]
        self.boxes = [self.root / ANNOTATION_FOLDER / f"{path.stem}.xml" for path in files]
        self._require_files(self.boxes)
        return files

    def _listed_names(self, part: str) -> list[str]:
        path = self.root / LIST_FOLDER / f"{part}.txt"
        if not path.is_file():
            raise self.missing(f"{path} does not exist")
        names = read_names(path)
        strange = next((name for name in names if not _NAME.fullmatch(name)), None)
        if strange is not None:
            raise self.damaged(f"{path} lists '{strange}', which is no name of a frame")
        return names

    def _selected(self, names: dict[str, list[str]]) -> list[str]:
        if self.split in _OFFICIAL:
            return names[_OFFICIAL[self.split]]
        return [name for part in names.values() for name in part if split_of(name) == self.split]

    def inputs(self) -> list[Path]:
        """Return the frames, the lists of frames, and the boxes."""
        lists = [self.root / LIST_FOLDER / f"{part}.txt" for part in _OFFICIAL.values()]
        return [*self.files, *lists, *self.label_files()]

    def label_files(self) -> list[Path]:
        """Return the files of boxes, one for each frame."""
        return self.boxes

    def _read(self, index: int, with_labels: bool) -> Scene:
        image = self.read_image(self.files[index])
        if not with_labels:
            return Scene(image)
        return Scene(image, labels=self._labels(self.boxes[index]))

    def _labels(self, path: Path) -> NDArray[np.uint8]:
        """Return which classes have a box, ``[4]``."""
        try:
            root = ElementTree.fromstring(read_text(path))
        except ElementTree.ParseError as error:
            raise self.damaged(f"{path} is no XML ({error})") from error
        found = {(box.findtext("name") or "").strip() for box in root.iter("object")}
        unknown = sorted(found - {*self.classes, _UNNAMED})
        if unknown:
            raise self.damaged(f"{path} has a box of '{unknown[0]}', which is no class")
        return np.array([name in found for name in self.classes], np.uint8)

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Draw 60 training, 24 validation and 30 test frames of 128 × 104 pixels."""
        names = [name for split, count in _SKETCH_FRAMES.items() for name in _names(split, count)]
        for name in names:
            canvas = Canvas(104, 128, rng)
            SCENES["meadow"](canvas, 1.0)
            for material, size in _SKETCH_OBJECTS.values():
                if rng.random() < 0.5:
                    canvas.boxes(material, 4, size, aspect=2.5)
            grey = canvas.render(sensors.RGB8, _LOOK).mean(axis=2, keepdims=True)
            picture = np.rint(grey).astype(np.uint8)
            write_picture(root / IMAGE_FOLDER / f"{name}.jpg", picture, quality=88)
            found = [
                label for label, (material, _) in _SKETCH_OBJECTS.items() if canvas.has([material])
            ]
            _write_boxes(root / ANNOTATION_FOLDER / f"{name}.xml", found)
        for number, part in enumerate(_OFFICIAL.values()):
            path = root / LIST_FOLDER / f"{part}.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join(names[number::3]) + "\n", encoding="utf-8")


def split_of(name: str) -> str | None:
    """Return the split of a frame such as ``0_100_30_0_03280``: that of its flight.

    None for the frames of the first flight that are left out.
    """
    number = int(name.rsplit("_", 1)[1])
    if number in _DENSE and number % _STEP:
        return None
    return next((split for first, last, split in _PARTS if first <= number <= last), "train")


def _names(split: str, count: int) -> list[str]:
    """Return ``count`` names of frames of a split."""
    numbers = (number for number in range(100_000) if split_of(f"1_60_30_0_{number:05d}") == split)
    return [f"1_60_30_0_{number:05d}" for number in islice(numbers, count)]


def _write_boxes(path: Path, found: list[str]) -> None:
    """Write an XML of Pascal VOC with one box for each class that was found."""
    root = ElementTree.Element("annotation")
    for name in [*found, _UNNAMED]:
        box = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(box, "name").text = name
    path.parent.mkdir(parents=True, exist_ok=True)
    ElementTree.ElementTree(root).write(path, encoding="utf-8")
