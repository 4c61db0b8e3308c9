"""MSTAR: SAR chips of ten vehicles at two depression angles (DARPA and AFRL).

The layout is that of the public copies with JPEG chips: ``train`` holds the chips at 17° of
depression and ``val`` those at 15°, each with one folder for each class, ``0`` to ``9``. Lists
``train.txt`` and ``val.txt`` name the chips, one ``CLASS/NAME.jpeg CLASS`` a line. The layout was
checked on a copy with byte-exact files. The publisher's own files hold magnitude and phase behind a
header of text; they are not read.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from rscl_bench import sensors
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.files import write_picture
from rscl_bench.archives.lists import read_lines
from rscl_bench.errors import ArchiveError, SpecError
from rscl_bench.spec import Spec

CLASSES = ("2S1", "BMP2", "BRDM2", "BTR60", "BTR70", "D7", "T62", "T72", "ZIL131", "ZSU234")
#: Side of a chip in pixels.
SIDE = 128
#: Split to the published folder that holds it.
_FOLDERS = {"train": "train", "val": "train", "test": "val", "official-train": "train"}
#: Chips at 17° whose numbers differ by about this much show a vehicle from one side.
_PERIOD = 60
#: Numbers modulo `_PERIOD` of the sector of ``val``; those of the two sectors beside it are left
#: out.
_VAL = range(21, 33)
_GAPS = (20, 33)
_LINE = re.compile(r"(?P<number>[0-9])/(?P<name>[0-9]+)\.jpeg (?P=number)")
#: Published folder to the chips of each class in a sketch, and the first number.
_SKETCH_CHIPS = {"train": (30, 0), "val": (12, 100_000)}


class MSTAROptions(Spec):
    """The options of MSTAR."""

    crop: Annotated[
        Annotated[int, Field(gt=0, le=SIDE, multiple_of=2)] | None,
        Field(
            description="side in pixels of the centre of a chip that is read, without most of the "
            "clutter around the vehicle; the whole chip of 128 pixels by default"
        ),
    ] = None
    amplitude: Annotated[
        Literal["linear", "db"],
        Field(
            description="`linear` reads magnitudes as stored, `db` in decibels below full scale",
        ),
    ] = "linear"


class MSTARAdapter(DatasetAdapter):
    """Chips of one vehicle each, with its class; trained at 17° and tested at 15°."""

    name = "mstar"
    folder = "mstar"
    title = "MSTAR (ten vehicles, standard operating conditions)"
    sensor = sensors.MSTAR_SAR
    classes = CLASSES
    splits = tuple(_FOLDERS)
    formats = ("JPEG",)
    source = "https://www.sdms.afrl.af.mil/index.php?collection=mstar"
    licence = "public release by DARPA and AFRL; see the source"
    layout = (
        "train/0/00001.jpeg and so on, ten folders of classes, val/0/100001.jpeg and so on, and "
    )
    layout += "the lists train.txt and val.txt with lines such as `0/00001.jpeg 0`"
    images = (
        "2,747 chips at 17° and 2,425 at 15°, JPEGs of 128 × 128 pixels of 0.2 m; smaller copies "
    )
    images += "are read too"
    notes = (
        "`train` and `val` are at 17° of depression, `test` at 15°. The numbers of the chips go "
        "around a vehicle in about 60 steps, so `val` is a sector of 12 of 60 numbers, and the "
        "number on each side of the sector is left out. `official-train` is all chips at 17°.",
        "The clutter around a vehicle is known to give its class away: `options.crop` reads the "
        "centre of the chips alone.",
        "Every chip of the lists must be there, and no other. The total is not checked, because "
        "smaller copies are in use.",
    )
    citations = ("https://doi.org/10.1117/12.242059", "https://doi.org/10.1117/12.357639")
    Options = MSTAROptions
    options: MSTAROptions

    @classmethod
    def configured(cls, options: Mapping[str, Any]) -> type[DatasetAdapter]:
        """Return the class whose sensor has the amplitude of the options."""
        return MSTARInDecibels if options.get("amplitude") == "db" else MSTARAdapter

    def _list_files(self) -> list[Path]:
        if self.options.amplitude != self.sensor.amplitude:
            raise SpecError(
                f"{type(self).__name__} reads {self.sensor.amplitude} amplitudes; open the class "
                "that adapter_class returns for the options."
            )
        chips = {folder: self._chips(folder) for folder in ("train", "val")}
        return [path for path in chips[_FOLDERS[self.split]] if self._is_selected(path)]

    def _chips(self, folder: str) -> list[Path]:
        """Return the chips at a depression angle: those of the list must exist, and no other."""
        names: dict[str, list[str]] = {str(number): [] for number in range(len(CLASSES))}
        for line in read_lines(self._list_of(folder)):
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise self.damaged(
                    f"{self._list_of(folder)} has the line '{line.strip()}', which is no chip and "
                    "its class, such as '0/00001.jpeg 0'"
                )
            names[match["number"]].append(f"{match['name']}.jpg")
        return [
            path
            for number, listed in names.items()
            for path in self._require_pictures(self.root / folder / number, sorted(listed))
        ]

    def _list_of(self, folder: str) -> Path:
        path = self.root / f"{folder}.txt"
        if not path.is_file():
            raise self.missing(f"{path} does not exist")
        return path

    def _is_selected(self, path: Path) -> bool:
        phase = int(path.stem) % 10_000 % _PERIOD
        if self.split == "val":
            return phase in _VAL
        return self.split != "train" or (phase not in _VAL and phase not in _GAPS)

    def inputs(self) -> list[Path]:
        """Return the chips and the two lists of them."""
        return [*self.files, self._list_of("train"), self._list_of("val")]

    def _read(self, index: int, with_labels: bool) -> Scene:
        path = self.files[index]
        image = self._cropped(path, self.read_image(path))
        if not with_labels:
            return Scene(image)
        labels = np.zeros(len(CLASSES), np.uint8)
        labels[int(path.parent.name)] = 1
        return Scene(image, labels=labels)

    def _cropped(self, path: Path, image: NDArray[Any]) -> NDArray[Any]:
        side = self.options.crop
        if side is None:
            return image
        height, width = image.shape[:2]
        if min(height, width) < side:
            raise ArchiveError(
                f"{path} is {width}×{height} pixels, smaller than crop = {side}; lower crop."
            )
        top, left = (height - side) // 2, (width - side) // 2
        return image[top : top + side, left : left + side]

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Draw 30 chips of each class at 17° and 12 at 15°, all around each vehicle."""
        for folder, (count, first) in _SKETCH_CHIPS.items():
            lines = []
            for number in range(len(CLASSES)):
                for turn in range(count):
                    chip = f"{first + 10_000 * number + turn * _PERIOD // count:05d}.jpeg"
                    lines.append(f"{number}/{chip} {number}")
                    pixels = _drawn_chip(number, 2 * np.pi * turn / count, rng)
                    write_picture(root / folder / str(number) / chip, pixels, quality=92)
            (root / f"{folder}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


class MSTARInDecibels(MSTARAdapter):
    """MSTAR with its magnitudes in decibels, for ``options.amplitude = "db"``."""

    sensor = sensors.MSTAR_SAR_DB


def _drawn_chip(number: int, angle: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a chip ``[128, 128, 1]``: a bright box with its shadow, in speckle.

    Args:
        number: Class, which gives length, width and number of bright edges of the box.
        angle: Direction of the vehicle in radians.
        rng: Source of the speckle, of the place and of the brightness of the ground.
    """
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2 + rng.uniform(-3, 3, (2, 1, 1))
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    length, width = 12 + 3 * (number % 5), 7 + 4 * (number // 5)
    power = np.full((SIDE, SIDE), rng.uniform(0.02, 0.06))
    shadow = (np.abs(along) < length) & (np.abs(across + width) < width)
    power[shadow & (y > 0)] = 0.003
    vehicle = (np.abs(along) < length) & (np.abs(across) < width)
    ridges = 1 + np.cos(along * np.pi * (1 + number % 3) / length)
    power[vehicle] = (0.1 + 0.3 * ridges)[vehicle]
    speckle = rng.exponential(1.0, power.shape)
    amplitude = np.sqrt(power * speckle)
    pixels: NDArray[np.uint8] = np.rint(255 * np.clip(amplitude, 0, 1)).astype(np.uint8)
    return pixels[:, :, None]
