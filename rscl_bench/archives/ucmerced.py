"""UC Merced Land Use with the 17 multi-labels of Chaudhuri et al.

The images have the layout of TorchGeo's ``UCMerced`` (``UCMerced_LandUse/Images/<class>``), whose
labels are one scene class each. The multi-labels are in ``LandUse_Multilabeled.txt``: one
tab-separated row for each image, its name without suffix and a column of 0 or 1 for each label. The
names of the columns were read from the published file.
"""

import csv
from collections.abc import Mapping
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench import sensors
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.download import RemoteFile
from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.lists import read_lines
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import ROOFS, Look
from rscl_bench.archives.painting.scenes import SCENES

#: Folder below the archive's folder that holds the folders of the scene classes.
IMAGE_FOLDER = "UCMerced_LandUse/Images"
#: File below the archive's folder that holds the multi-labels.
LABEL_FILE = "LandUse_Multilabeled.txt"
SPLIT_FILE = Path(__file__).parent / "splits" / "ucmerced-multilabel.csv"
SPLIT_SIZES = {"train": 1000, "val": 300, "test": 800}
#: Scene class to the scene that a sketch shows, and its size of objects.
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
SCENE_CLASSES = tuple(_SCENES)
#: Label to the materials that a sketch shows for it.
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
_LOOK = Look(middle=0.45, contrast=0.13)
#: Objects of the sketch are this much larger than real ones, so that an encoder of small images
#: sees them.
_ENLARGED = 1.6


def generate_split() -> list[tuple[str, str]]:
    """Compute the stored split: all 2,100 names, sorted, each with ``train``, ``val`` or ``test``.

    The CoSMAE paper gives the sizes, 1,000, 300 and 800, and no names. Here, the splits are cut
    from a permutation of the sorted names by NumPy's Philox with key 0. The adapter reads the
    result from a file in ``splits``, so that no change in NumPy can change the split.
    """
    names = sorted(f"{scene}{number:02d}" for scene in SCENE_CLASSES for number in range(100))
    order = np.random.Generator(np.random.Philox(key=0)).permutation(len(names))
    roles = np.repeat(list(SPLIT_SIZES), list(SPLIT_SIZES.values()))
    split = {names[position]: str(role) for position, role in zip(order, roles, strict=True)}
    return [(name, split[name]) for name in names]


@cache
def stored_split() -> dict[str, str]:
    """Return the split of every image, by the name of the image."""
    with SPLIT_FILE.open(encoding="utf-8", newline="") as file:
        return {row["name"]: row["split"] for row in csv.DictReader(file)}


class UCMercedAdapter(DatasetAdapter):
    """UC Merced's RGB images with 17 multi-labels.

    Images keep their stored size. 44 of them are not exactly 256 × 256, so a scenario cuts them
    ``whole``.
    """

    name = "ucmerced"
    folder = "ucmerced"
    title = "UC Merced Land Use with multi-labels"
    sensor = sensors.UCMERCED_RGB
    classes = tuple(_LABELS)
    splits = tuple(SPLIT_SIZES)
    formats = ("TIFF",)
    source = (
        "http://weegee.vision.ucmerced.edu/datasets/landuse.html and, for the labels, "
        "https://bigearth.eu/datasets"
    )
    licence = "public domain (USGS) for the images; research use, with citation, for the labels"
    layout = (
        "UCMerced_LandUse/Images/agricultural/agricultural00.tif and so on, and "
        "LandUse_Multilabeled.txt"
    )
    images = "2,100 aerial TIFFs of about 256 × 256 pixels"
    notes = (
        'The size of 44 images differs by some pixels: use `cut = "whole"`.',
        "The splits have 1,000, 300 and 800 images, stored in "
        "`rscl_bench/archives/splits/ucmerced-multilabel.csv`.",
    )
    citations = (
        "https://doi.org/10.1145/1869790.1869829",
        "https://doi.org/10.1109/TGRS.2017.2760909",
    )

    @classmethod
    def remote_files(cls, split: str, options: Mapping[str, Any]) -> list[RemoteFile]:
        """Return the images as TorchGeo mirrors them; labels are fetched by hand."""
        from torchgeo.datasets import UCMerced

        sha256 = getattr(UCMerced, "sha256", None)  # TorchGeo 0.8 has MD5 alone
        digest = f"sha256:{sha256}" if sha256 else f"md5:{UCMerced.md5}"
        name = UCMerced.filename
        return [RemoteFile(UCMerced.url + name, name, digest, unpack_into=".")]

    def _list_files(self) -> list[Path]:
        self.label_file = self.root / LABEL_FILE
        if not (self.root / IMAGE_FOLDER).is_dir() or not self.label_file.is_file():
            raise self.missing(f"{self.root} lacks {IMAGE_FOLDER} or {LABEL_FILE}")
        self.labels = self._read_labels()
        unlabelled = [name for name in stored_split() if name not in self.labels]
        if unlabelled and not self.is_sketch:
            raise self.missing(
                f"{self.label_file} has no row for {unlabelled[0]} and {len(unlabelled) - 1} more"
            )
        # An archive that lacks an image of any split is partial.
        names = self.labels if self.is_sketch else stored_split()
        images = self._images(sorted(names))
        split = sorted(name for name, part in stored_split().items() if part == self.split)
        return [images[name] for name in split if name in self.labels]

    def _images(self, names: list[str]) -> dict[str, Path]:
        """Return the path of each image by its name without suffix."""
        images: dict[str, Path] = {}
        for scene, group in groupby(names, key=lambda name: name[:-2]):
            wanted = list(group)
            folder = self.root / IMAGE_FOLDER / scene
            found = self._require_pictures(folder, [f"{name}.tif" for name in wanted])
            images |= dict(zip(wanted, found, strict=True))
        return images

    def _read_labels(self) -> dict[str, NDArray[np.uint8]]:
        """Return the labels ``[17]`` of every image, by the name of the image."""
        header, *rows = (line.split("\t") for line in read_lines(self.label_file))
        if len(header) == 1:
            raise self.damaged(f"{self.label_file} has no tabs between its columns")
        if tuple(name.strip() for name in header[1:]) != self.classes:
            raise self.damaged(f"{self.label_file} has the columns {header[1:]}, not the 17 labels")
        labels: dict[str, NDArray[np.uint8]] = {}
        for row in rows:
            name, values = row[0].strip(), [value.strip() for value in row[1:]]
            if len(row) != len(header) or not set(values) <= {"0", "1"}:
                raise self.damaged(
                    f"{self.label_file} has a row that is not a name and 17 times 0 or 1: {row}"
                )
            if name in labels:
                raise self.damaged(f"{self.label_file} has two rows for {name}")
            labels[name] = np.array(values, dtype=np.uint8)
        return labels

    def inputs(self) -> list[Path]:
        """Return the images and the table of labels."""
        return [*self.files, self.label_file]

    def _read(self, index: int, with_labels: bool) -> Scene:
        path = self.files[index]
        return Scene(self.read_image(path), labels=self.labels[path.stem] if with_labels else None)

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Draw 210 training, 42 validation and 126 test images, labelled by their materials."""
        lines = ["\t".join(["IMAGE\\LABEL", *cls.classes])]
        for name in _sketch_names({"train": 210, "val": 42, "test": 126}):
            canvas = Canvas(256, 256, rng)
            scene, size = _SCENES[name[:-2]]
            SCENES[scene](canvas, _ENLARGED * size)
            labels = [str(int(canvas.has(_LABELS[label]))) for label in cls.classes]
            lines.append("\t".join([name, *labels]))
            write_tiff(
                root / IMAGE_FOLDER / name[:-2] / f"{name}.tif",
                canvas.render(cls.sensor, _LOOK),
                compress="jpeg",
                photometric="ycbcr",
                interleave="pixel",
            )
        (root / LABEL_FILE).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _sketch_names(counts: dict[str, int]) -> list[str]:
    """Return sorted names, ``counts`` of each split, taken from the scene classes in turn."""
    chosen = []
    for split, count in counts.items():
        by_class: dict[str, list[str]] = {scene: [] for scene in SCENE_CLASSES}
        for name, part in sorted(stored_split().items()):
            if part == split:
                by_class[name[:-2]].append(name)
        turns = [names[i] for i in range(count) for names in by_class.values() if i < len(names)]
        chosen += turns[:count]
    return sorted(chosen)
