"""UAVid: oblique drone video frames of streets with 8-class masks.

The layout was checked against public loaders and copies of version 1.5
(``uavid_train/seq1/Images/000000.png``, ``Labels``, frames 100 numbers apart; 200, 70 and 150
images) and the colours against several of them; the classes are those of the paper.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchgeo.datasets import DatasetNotFoundError, NonGeoDataset

from rscl_bench import sensors
from rscl_bench.archives.adapter import Scene
from rscl_bench.archives.files import (
    ArchiveAdapter,
    read_picture,
    sketch_folder,
    write_picture,
)
from rscl_bench.archives.painting import Canvas, Look, districts
from rscl_bench.errors import ArchiveError, SpecError


class UAVid(NonGeoDataset):  # type: ignore[misc]  # torchgeo is followed as Any
    """UAVid dataset, version 1.5.

    The `UAVid <https://uavid.nl/>`__ dataset is for semantic segmentation of street scenes seen
    obliquely from a drone at about 50 m.

    Dataset features:

    * 42 video sequences of 10 frames: 20 for training, 7 for validation, 15 for testing
    * frames of 3840 x 2160 or 4096 x 2160 pixels
    * pixel masks of 8 classes; those of the test sequences are not public

    Dataset format:

    * images and masks are three-channel PNGs, ``uavid_train/seq1/Images/000000.png`` and
      ``uavid_train/seq1/Labels/000000.png``; the numbers of the frames are 000000, 000100, ...,
      000900
    * masks have one colour per class

    Dataset classes:

    0. Background clutter
    1. Building
    2. Road
    3. Static car
    4. Tree
    5. Low vegetation
    6. Human
    7. Moving car

    If you use this dataset in your research, please cite the following paper:

    * https://doi.org/10.1016/j.isprsjprs.2020.05.009
    """

    splits = ("train", "val", "test")
    classes = (
        "background-clutter",
        "building",
        "road",
        "static-car",
        "tree",
        "low-vegetation",
        "human",
        "moving-car",
    )
    colormap = (
        (0, 0, 0),
        (128, 0, 0),
        (128, 64, 128),
        (192, 0, 192),
        (0, 128, 0),
        (128, 128, 0),
        (64, 64, 0),
        (64, 0, 128),
    )
    sequences: ClassVar[dict[str, int]] = {"train": 20, "val": 7, "test": 15}
    frames: ClassVar[tuple[str, ...]] = tuple(f"{100 * i:06d}.png" for i in range(10))
    archive = "uavid_v1.5_official_release_image"

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        split: str = "train",
        transforms: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
        checksum: bool = False,
    ) -> None:
        """Initialize a new UAVid dataset instance.

        Args:
            root: root directory where dataset can be found, with the zip file unpacked
            split: one of "train", "val" or "test"
            transforms: a function/transform that takes input sample and its target as entry and
                returns a transformed version
            checksum: if True, read every file of the split once (slow): the publisher gives no
                checksums

        Raises:
            AssertionError: If *split* is invalid.
            DatasetNotFoundError: If dataset is not found.
        """
        assert split in self.splits
        self.root = root
        self.split = split
        self.transforms = transforms
        self.checksum = checksum

        places = (Path(root), Path(root) / self.archive)
        folders = [p / f"uavid_{split}" for p in places if (p / f"uavid_{split}").is_dir()]
        if not folders:
            raise DatasetNotFoundError(self)
        found = [path for path in folders[0].glob("seq*") if re.fullmatch(r"seq\d+", path.name)]
        self.folders = sorted(found, key=lambda path: int(path.name[3:]))
        self.files: list[dict[str, Path]] = []
        for folder in self.folders:
            for image in sorted((folder / "Images").glob("*.png")):
                mask = folder / "Labels" / image.name
                self.files.append(
                    {"image": image} if split == "test" else {"image": image, "mask": mask}
                )
        if not self.files:
            raise DatasetNotFoundError(self)
        if checksum:
            for index in range(len(self)):
                self.read(index)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return an index within the dataset.

        Args:
            index: index to return

        Returns:
            image (float32, [3, H, W]) and, but for the test split, mask (long, [H, W])
        """
        image, mask = self.read(index)
        sample = {"image": torch.from_numpy(np.moveaxis(image, 2, 0).astype(np.float32))}
        if mask is not None:
            sample["mask"] = torch.from_numpy(mask).long()
        if self.transforms is not None:
            sample = self.transforms(sample)
        return sample

    def __len__(self) -> int:
        """Return the number of data points in the dataset.

        Returns:
            length of the dataset
        """
        return len(self.files)

    def read(
        self, index: int, with_mask: bool = True
    ) -> tuple[NDArray[Any], NDArray[np.uint8] | None]:
        """Return image ``[H, W, 3]`` in the file's dtype and mask ``[H, W]``, as arrays.

        Args:
            index: index to return
            with_mask: whether the mask is wanted

        Returns:
            image and mask; None where it is not wanted, or the split is "test"

        Raises:
            ValueError: If a mask holds a colour that is no class.
        """
        files = self.files[index]
        image = read_picture(files["image"])
        if not with_mask or "mask" not in files:
            return image, None
        return image, self._decode(read_picture(files["mask"], "RGB"), files["mask"])

    def _decode(self, colours: NDArray[np.uint8], path: Path) -> NDArray[np.uint8]:
        codes = _packed(colours)
        known = _packed(np.array(self.colormap, np.uint8))
        order = np.argsort(known)
        places = np.minimum(np.searchsorted(known[order], codes), len(known) - 1)
        mask: NDArray[np.uint8] = order[places].astype(np.uint8)
        wrong = known[mask] != codes
        if wrong.any():
            y, x = np.argwhere(wrong)[0]
            colour = tuple(colours[y, x].tolist())
            raise ValueError(
                f"{path} holds the colour {colour} at row {y}, column {x}, which is no class"
            )
        return mask


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.int32]:
    wide = colours.astype(np.int32)
    packed: NDArray[np.int32] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed


class UAVidAdapter(ArchiveAdapter):
    """UAVid's frames and 8-class masks, read through `UAVid`.

    Cut into whole 256-pixel tiles, the 200 training frames give 24,560 and the 70 validation
    frames 8,640, the CoSMAE paper's numbers: a frame of 3840 × 2160 gives 15 × 8 = 120 tiles, one
    of 4096 × 2160 gives 16 × 8 = 128, with 130 and 70 such frames, and 40 and 30.
    """

    name = "uavid"
    folder = "uavid"
    title = "UAVid"
    sensor = sensors.UAVID_RGB
    classes = UAVid.classes
    splits = UAVid.splits
    source = "https://uavid.nl/"
    licence = "CC BY-NC-SA 4.0"
    layout = "uavid_train/seq1/Images/000000.png, uavid_train/seq1/Labels/000000.png and so on"

    def _list(self) -> list[Path]:
        try:
            self.dataset = UAVid(self.root, self.split)
        except DatasetNotFoundError as error:
            raise self.missing(
                f"{self.root} has no uavid_{self.split}/seq*/Images/*.png"
            ) from error
        if not self.is_sketch:
            self._demand([f / "Images" / n for f in self.dataset.folders for n in UAVid.frames])
        self._demand([files["mask"] for files in self.dataset.files if "mask" in files])
        self._demand_count(
            len(self.dataset.folders), UAVid.sequences[self.split], f"{self.split} sequences"
        )
        return [files["image"] for files in self.dataset.files]

    def inputs(self) -> list[Path]:
        """Return images and masks."""
        return [path for files in self.dataset.files for path in files.values()]

    def _read(self, index: int, with_labels: bool) -> Scene:
        if with_labels and self.split == "test":
            raise SpecError("The labels of UAVid's split 'test' are not public; use 'val'.")
        try:
            image, mask = self.dataset.read(index, with_labels)
        except ValueError as error:
            raise ArchiveError(f"{error}; fetch it again from {self.source}.") from error
        return Scene(image, mask=mask)

    @classmethod
    def write_sketch(cls, data_root: Path, rng: np.random.Generator) -> None:
        """Write frames of 1024 × 768 pixels: 8 for training, 3 for validation, 1 for testing."""
        frames = [
            *(("train", f"seq{n}", frame) for n in range(1, 5) for frame in UAVid.frames[:2]),
            *(("val", f"seq{n}", UAVid.frames[0]) for n in (16, 17, 18)),
            ("test", "seq21", UAVid.frames[0]),
        ]
        colours = np.array(UAVid.colormap, np.uint8)
        table = {material: UAVid.classes.index(name) for material, name in _MATERIAL_CLASS.items()}
        with sketch_folder(data_root, cls.folder) as root:
            for split, sequence, frame in frames:
                canvas = Canvas(768, 1024, rng)
                districts(canvas, _SCENES, side=128, size=1.3)
                canvas.boxes("human", 60, (1, 2))
                _tilt(canvas)
                folder = root / f"uavid_{split}" / sequence
                image = canvas.render(cls.sensor, _LOOK)
                write_picture(folder / "Images" / frame, image, compress_level=1)
                if split != "test":
                    mask = colours[canvas.classes(table)]
                    write_picture(folder / "Labels" / frame, mask, compress_level=1)


def _tilt(canvas: Canvas) -> None:
    """Squeeze the rows at the top, as a camera that looks ahead does."""
    height = canvas.cover.shape[0]
    rows = (height * (np.arange(height) / height) ** 0.6).astype(np.intp)
    canvas.cover = canvas.cover[rows]
    canvas.level = canvas.level[rows]


_LOOK = Look(gain=2.3, haze=0.02)
_SCENES = ("residential", "residential", "road", "parking", "industrial", "meadow", "forest")
_MATERIAL_CLASS = {
    "soil": "background-clutter",
    "sand": "background-clutter",
    "clutter": "background-clutter",
    "water": "background-clutter",
    "building": "building",
    "building-red": "building",
    "building-white": "building",
    "pavement": "road",
    "bridge": "road",
    "car": "static-car",
    "moving-car": "moving-car",
    "trees": "tree",
    "grass": "low-vegetation",
    "field": "low-vegetation",
    "chaparral": "low-vegetation",
    "human": "human",
}
