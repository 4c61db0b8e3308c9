"""UC Merced Land Use with the 17 multi-labels of Chaudhuri et al.

Layout: the images as TorchGeo's ``UCMerced`` has them (``UCMerced_LandUse/Images/<class>``), which
knows their one scene class each; the labels in ``LandUse_Multilabeled.txt``, whose columns were
read from the file itself.
"""

import csv
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchgeo.datasets import DatasetNotFoundError, NonGeoDataset

from rscl_bench import sensors
from rscl_bench.archives.adapter import Scene
from rscl_bench.archives.files import ArchiveAdapter, read_tiff, sketch_folder, write_tiff
from rscl_bench.archives.painting import ROOFS, SCENES, Canvas, Look
from rscl_bench.errors import ArchiveError

SPLIT_FILE = Path(__file__).parent / "splits" / "ucmerced-multilabel.csv"
SPLIT_SIZES = {"train": 1000, "val": 300, "test": 800}
SCENE_CLASSES = (
    "agricultural",
    "airplane",
    "baseballdiamond",
    "beach",
    "buildings",
    "chaparral",
    "denseresidential",
    "forest",
    "freeway",
    "golfcourse",
    "harbor",
    "intersection",
    "mediumresidential",
    "mobilehomepark",
    "overpass",
    "parkinglot",
    "river",
    "runway",
    "sparseresidential",
    "storagetanks",
    "tenniscourt",
)


def generate_split() -> list[tuple[str, str]]:
    """Return the stored split anew: all 2,100 names, sorted, with ``train``, ``val`` or ``test``.

    The CoSMAE paper gives the sizes, 1,000, 300 and 800, and no names. Here they are cut from a
    permutation of the sorted names, by NumPy's Philox with key 0. The file in ``splits`` was
    written from this once and is what is read, so that no change in NumPy can change the split.
    """
    names = sorted(f"{scene}{number:02d}" for scene in SCENE_CLASSES for number in range(100))
    order = np.random.Generator(np.random.Philox(key=0)).permutation(len(names))
    roles = np.repeat(list(SPLIT_SIZES), list(SPLIT_SIZES.values()))
    split = {names[position]: str(role) for position, role in zip(order, roles, strict=True)}
    return [(name, split[name]) for name in names]


@cache
def stored_split() -> dict[str, str]:
    """Return the split of every image by name."""
    with SPLIT_FILE.open(encoding="utf-8", newline="") as file:
        return {row["name"]: row["split"] for row in csv.DictReader(file)}


class UCMercedMultiLabel(NonGeoDataset):  # type: ignore[misc]  # torchgeo is followed as Any
    """UC Merced Land Use dataset with multi-labels.

    The `UC Merced Land Use <http://weegee.vision.ucmerced.edu/datasets/landuse.html>`__ images with
    the `multi-labels <https://bigearth.eu/datasets>`__ of the paper below.

    Dataset features:

    * 2,100 RGB images of 256 x 256 pixels at 1 ft; 44 of them are some pixels smaller or larger
    * 17 multi-labels

    Dataset format:

    * images are three-channel TIFFs, ``UCMerced_LandUse/Images/agricultural/agricultural00.tif``
    * labels are one tab-separated table, ``LandUse_Multilabeled.txt``: a row per image, by name
      without suffix, and a column of 0 and 1 per label

    If you use this dataset in your research, please cite the following papers:

    * https://doi.org/10.1145/1869790.1869829
    * https://doi.org/10.1109/TGRS.2017.2760909
    """

    splits = tuple(SPLIT_SIZES)
    classes = (
        "airplane",
        "bare-soil",
        "buildings",
        "cars",
        "chaparral",
        "court",
        "dock",
        "field",
        "grass",
        "mobile-home",
        "pavement",
        "sand",
        "sea",
        "ship",
        "tanks",
        "trees",
        "water",
    )
    base_dir = "UCMerced_LandUse/Images"
    label_file = "LandUse_Multilabeled.txt"

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        split: str = "train",
        transforms: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
        checksum: bool = False,
    ) -> None:
        """Initialize a new UC Merced multi-label dataset instance.

        Args:
            root: root directory where dataset can be found
            split: one of "train", "val" or "test"
            transforms: a function/transform that takes input sample and its target as entry and
                returns a transformed version
            checksum: if True, read every file of the split once (slow): the labels' publisher
                gives no checksums

        Raises:
            AssertionError: If *split* is invalid.
            DatasetNotFoundError: If dataset is not found.
            ValueError: If the table of labels is not what it should be.
        """
        assert split in self.splits
        self.root = root
        self.split = split
        self.transforms = transforms
        self.checksum = checksum
        table = Path(root) / self.label_file
        if not (Path(root) / self.base_dir).is_dir() or not table.is_file():
            raise DatasetNotFoundError(self)
        self.labels = self._read_labels(table)
        self.files = [
            Path(root) / self.base_dir / name[:-2] / f"{name}.tif"
            for name, part in sorted(stored_split().items())
            if part == split and name in self.labels
        ]
        if checksum:
            for index in range(len(self)):
                self.read(index)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return an index within the dataset.

        Args:
            index: index to return

        Returns:
            image (float32, [3, H, W]) and label (long, [17], of 0 and 1)
        """
        image, label = self.read(index)
        sample = {
            "image": torch.from_numpy(np.moveaxis(image, 2, 0).astype(np.float32)),
            "label": torch.from_numpy(label).long(),
        }
        if self.transforms is not None:
            sample = self.transforms(sample)
        return sample

    def __len__(self) -> int:
        """Return the number of data points in the dataset.

        Returns:
            length of the dataset
        """
        return len(self.files)

    def read(self, index: int) -> tuple[NDArray[Any], NDArray[np.uint8]]:
        """Return image ``[H, W, 3]`` in the file's dtype and label ``[17]``, as arrays.

        Args:
            index: index to return

        Returns:
            image and label
        """
        path = self.files[index]
        return read_tiff(path), self.labels[path.stem]

    def _read_labels(self, table: Path) -> dict[str, NDArray[np.uint8]]:
        header, *rows = (line.split("\t") for line in table.read_text("utf-8").splitlines())
        if tuple(name.strip() for name in header[1:]) != self.classes:
            raise ValueError(f"{table} has the columns {header[1:]}, not the 17 labels")
        labels = {}
        for row in rows:
            if len(row) != len(header) or not set(row[1:]) <= {"0", "1"}:
                raise ValueError(f"{table} has a row that is not a name and 17 times 0 or 1: {row}")
            labels[row[0]] = np.array(row[1:], dtype=np.uint8)
        return labels


class UCMercedAdapter(ArchiveAdapter):
    """UC Merced's RGB tiles with 17 multi-labels, read through `UCMercedMultiLabel`.

    Scenes keep their true size: 44 are not quite 256 × 256, so cut them ``whole``.
    """

    name = "ucmerced"
    folder = "ucmerced"
    title = "UC Merced Land Use with multi-labels"
    sensor = sensors.UCMERCED_RGB
    classes = UCMercedMultiLabel.classes
    splits = UCMercedMultiLabel.splits
    source = (
        "http://weegee.vision.ucmerced.edu/datasets/landuse.html and, for the labels, "
        "https://bigearth.eu/datasets"
    )
    licence = "public domain (USGS) for the images; research use, with citation, for the labels"
    layout = (
        "UCMerced_LandUse/Images/agricultural/agricultural00.tif and so on, and "
        "LandUse_Multilabeled.txt"
    )

    def _list(self) -> list[Path]:
        try:
            self.dataset = UCMercedMultiLabel(self.root, self.split)
        except DatasetNotFoundError as error:
            raise self.missing(
                f"{self.root} lacks {UCMercedMultiLabel.base_dir} or "
                f"{UCMercedMultiLabel.label_file}"
            ) from error
        except ValueError as error:
            raise ArchiveError(f"{error}; fetch it again from {self.source}.") from error
        table = self.root / UCMercedMultiLabel.label_file
        absent = [name for name in stored_split() if name not in self.dataset.labels]
        if absent and not self.is_sketch:
            raise self.missing(f"{table} has no row for {absent[0]} and {len(absent) - 1} more")
        # All splits: an archive that lacks an image is partial, whichever split it is of.
        names = stored_split() if not self.is_sketch else self.dataset.labels
        images = self.root / UCMercedMultiLabel.base_dir
        self._demand([images / name[:-2] / f"{name}.tif" for name in names])
        return self.dataset.files

    def inputs(self) -> list[Path]:
        """Return images and the table of labels."""
        return [*self.files, self.root / UCMercedMultiLabel.label_file]

    def _read(self, index: int, with_labels: bool) -> Scene:
        image, label = self.dataset.read(index)
        return Scene(image, labels=label if with_labels else None)

    @classmethod
    def write_sketch(cls, data_root: Path, rng: np.random.Generator) -> None:
        """Write 120 training, 40 validation and 80 test images, with labels of what is on them."""
        with sketch_folder(data_root, cls.folder) as root:
            lines = ["\t".join(["IMAGE\\LABEL", *cls.classes])]
            for name in _sketch_names({"train": 120, "val": 40, "test": 80}):
                canvas = Canvas(256, 256, rng)
                scene, size = _SCENES[name[:-2]]
                SCENES[scene](canvas, size)
                label = [str(int(canvas.has(_LABELS[c]))) for c in cls.classes]
                lines.append("\t".join([name, *label]))
                write_tiff(
                    root / UCMercedMultiLabel.base_dir / name[:-2] / f"{name}.tif",
                    canvas.render(cls.sensor, _LOOK),
                    compress="jpeg",
                    photometric="ycbcr",
                    interleave="pixel",
                )
            table = root / UCMercedMultiLabel.label_file
            table.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sketch_names(counts: dict[str, int]) -> list[str]:
    """Return true names, sorted: as many per split as wanted, the scene classes in turn."""
    chosen = []
    for split, count in counts.items():
        by_class: dict[str, list[str]] = {scene: [] for scene in SCENE_CLASSES}
        for name, part in sorted(stored_split().items()):
            if part == split:
                by_class[name[:-2]].append(name)
        turns = [names[i] for i in range(count) for names in by_class.values() if i < len(names)]
        chosen += turns[:count]
    return sorted(chosen)


_LOOK = Look(gain=2.0, haze=0.07)
_SCENES = {
    "agricultural": ("farmland", 1.0),
    "airplane": ("airport", 1.0),
    "baseballdiamond": ("baseball", 1.0),
    "beach": ("beach", 1.0),
    "buildings": ("industrial", 1.0),
    "chaparral": ("chaparral", 1.0),
    "denseresidential": ("residential", 0.8),
    "forest": ("forest", 1.0),
    "freeway": ("road", 1.0),
    "golfcourse": ("golf", 1.0),
    "harbor": ("harbor", 1.0),
    "intersection": ("road", 0.8),
    "mediumresidential": ("residential", 1.0),
    "mobilehomepark": ("mobile-homes", 1.0),
    "overpass": ("road", 1.2),
    "parkinglot": ("parking", 1.0),
    "river": ("river", 1.0),
    "runway": ("runway", 1.0),
    "sparseresidential": ("residential", 1.6),
    "storagetanks": ("tanks", 1.0),
    "tenniscourt": ("courts", 1.0),
}
_LABELS: dict[str, tuple[str, ...]] = {
    "airplane": ("airplane",),
    "bare-soil": ("soil",),
    "buildings": ROOFS,
    "cars": ("car", "moving-car"),
    "chaparral": ("chaparral",),
    "court": ("court",),
    "dock": ("dock",),
    "field": ("field",),
    "grass": ("grass",),
    "mobile-home": ("mobile-home",),
    "pavement": ("pavement", "bridge"),
    "sand": ("sand",),
    "sea": ("sea",),
    "ship": ("ship",),
    "tanks": ("tank",),
    "trees": ("trees",),
    "water": ("water",),
}
