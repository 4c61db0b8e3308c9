"""Satellite images after Hurricane Harvey, each of one building, damaged or not (Cao & Choe).

The layout was checked on a copy with byte-exact files: ``<folder>/<class>/<longitude>_<latitude>
.jpeg``, 128 × 128 pixels.

The publisher's folders hold one place in several of them: of 1,800 chips, 57 stand twice with equal
coordinates, once in each class, and 26 of these pairs lie in two folders. The splits
here are by place.
"""

import math
from hashlib import sha256
from pathlib import Path

import numpy as np

from rscl_bench import sensors
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.files import write_picture
from rscl_bench.archives.listing import pictures_in
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.painting.scenes import SCENES
from rscl_bench.errors import ArchiveError

#: Split that is a published folder, to the folder.
_OFFICIAL = {
    "official-train": "train_another",
    "official-val": "validation_another",
    "official-test": "test_another",
}
#: Side of a block of ground, in millionths of a degree: about 2 km.
BLOCK = 20_000
#: A chip nearer than this to a block of another split is left out, in millionths of a degree: about
#: 100 m. Two chips of different splits are then at least twice as far apart; a chip is 64 m wide.
MARGIN = 1_000
#: Of the keys 0 to 5, the one that gives both classes equal shares of each split.
_KEY = 5
#: Values of the first byte of a block's hash below which a block is of ``test`` and of ``val``.
_TEST, _VAL = 64, 96
_LOOK = Look(middle=0.35, contrast=0.12)
#: Class to the scenes that a sketch shows, with their size of objects.
_SCENES = {"damage": ("pond", 0.6), "no_damage": ("residential", 0.5)}


class HurricaneDamageAdapter(DatasetAdapter):
    """Chips of buildings with the label ``damage`` or ``no_damage``, split by place."""

    name = "hurricane-damage"
    folder = "hurricane_damage"
    title = "Satellite images of hurricane damage (Harvey, 2017)"
    sensor = sensors.WORLDVIEW_RGB
    classes = ("damage", "no_damage")
    splits = ("train", "val", "test", *_OFFICIAL)
    formats = ("JPEG",)
    source = "https://dx.doi.org/10.21227/sdad-1e56"
    licence = "CC BY 4.0; images from the Open Data Program of DigitalGlobe, CC BY-NC 4.0"
    layout = "train_another/damage/-93.5302_30.988157.jpeg and so on, with validation_another and "
    layout += "test_another, each with damage and no_damage"
    images = "21,000 JPEGs of 128 × 128 pixels at about 0.5 m; smaller copies are read too"
    notes = (
        "`train`, `val` and `test` are by place: blocks of 0.02° of longitude and latitude, and a "
        "chip within 0.001° of a block of another split is left out, so that chips of different "
        "splits are at least 190 m apart. `official-train`, `official-val` and `official-test` are "
        "the published folders, which show some buildings twice.",
        "Many chips of the class `no_damage` were taken before the hurricane: the class goes with "
        "the date of the image, and not with damage alone.",
        "The folder `test` of the archive is not read. The number of images is not checked, "
        "because smaller copies are in use.",
    )
    citations = ("https://arxiv.org/abs/1807.01688",)

    def _list_files(self) -> list[Path]:
        return [
            path
            for folder in _OFFICIAL.values()
            for scene_class in self.classes
            for path in self._pictures(folder, scene_class)
            if self._is_selected(folder, path)
        ]

    def _pictures(self, folder: str, scene_class: str) -> list[Path]:
        """Return all images of a class in a published folder; there must be some."""
        parent = self.root / folder / scene_class
        paths = [parent / name for name in pictures_in(parent, ".jpg")]
        if not paths:
            raise self.missing(f"{parent} holds no *.jpeg")
        return paths

    def _is_selected(self, folder: str, path: Path) -> bool:
        if self.split in _OFFICIAL:
            return folder == _OFFICIAL[self.split]
        return split_of(*coordinates(path)) == self.split

    def _read(self, index: int, with_labels: bool) -> Scene:
        path = self.files[index]
        image = self.read_image(path)
        if not with_labels:
            return Scene(image)
        present = [path.parent.name == name for name in self.classes]
        return Scene(image, labels=np.array(present, np.uint8))

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Draw 60 chips of each class for each split, 40 m apart in the middle of its blocks."""
        for number, folder in enumerate(_OFFICIAL.values()):
            for split in ("train", "val", "test"):
                west, south = _middle_of_a_block(split)
                for scene_class, (scene, size) in _SCENES.items():
                    for count in range(20):
                        canvas = Canvas(128, 128, rng)
                        SCENES[scene](canvas, size)
                        east = west + 400 * count
                        north = south + 400 * (2 * number + (scene_class == "damage"))
                        write_picture(
                            root / folder / scene_class / f"{east / 1e6}_{north / 1e6}.jpeg",
                            canvas.render(cls.sensor, _LOOK),
                            quality=92,
                        )


def coordinates(path: Path) -> tuple[int, int]:
    """Return longitude and latitude of a chip, in millionths of a degree.

    Args:
        path: A file such as ``-93.5302_30.988157.jpeg``.

    Raises:
        ArchiveError: If the file's name is no pair of coordinates.
    """
    try:
        longitude, latitude = (float(part) for part in path.stem.split("_"))
        return round(1e6 * longitude), round(1e6 * latitude)
    except (ValueError, OverflowError) as error:  # also NaN and infinity
        raise ArchiveError(
            f"{path} is not named LONGITUDE_LATITUDE.jpeg; give it its published name."
        ) from error


def split_of(longitude: int, latitude: int) -> str | None:
    """Return the split of a place; None if the place is near a block of another split.

    Args:
        longitude: Longitude in millionths of a degree.
        latitude: Latitude in millionths of a degree.
    """
    corners = {
        _split_of_block((longitude + x) // BLOCK, (latitude + y) // BLOCK)
        for x in (-MARGIN, MARGIN)
        for y in (-MARGIN, MARGIN)
    }
    return corners.pop() if len(corners) == 1 else None


def _split_of_block(column: int, row: int) -> str:
    byte = sha256(f"{_KEY}:{column}:{row}".encode()).digest()[0]
    return "test" if byte < _TEST else "val" if byte < _VAL else "train"


def _middle_of_a_block(split: str) -> tuple[int, int]:
    """Return west and south of the middle of the first block of a split on 30° of latitude."""
    row = 30_000_000 // BLOCK
    column = next(
        number
        for number in range(math.floor(-96_000_000 / BLOCK), 0)
        if _split_of_block(number, row) == split
    )
    return column * BLOCK + 2 * MARGIN, row * BLOCK + 2 * MARGIN
