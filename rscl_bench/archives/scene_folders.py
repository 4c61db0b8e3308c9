"""Archives of scene classification: one folder of JPEGs per class."""

import os
import re
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchgeo.datasets import DatasetNotFoundError, NonGeoDataset

from rscl_bench.archives.adapter import Scene
from rscl_bench.archives.files import (
    ArchiveAdapter,
    read_picture,
    sketch_folder,
    write_picture,
)
from rscl_bench.archives.painting import SCENES, Canvas, Look


class SceneFolders(NonGeoDataset):  # type: ignore[misc]  # torchgeo is followed as Any
    """Base of the datasets here: ``<base_dir>/<class>/<picture>.jpg``.

    Attributes:
        base_dir: Folder below the root that holds the folders of the classes.
        classes: Names of the folders, in the order of the labels.
    """

    base_dir: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        classes: tuple[str, ...] | None = None,
        transforms: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
        checksum: bool = False,
    ) -> None:
        """Initialize a new dataset instance.

        Args:
            root: root directory where dataset can be found
            classes: the classes to load; all if None
            transforms: a function/transform that takes input sample and its target as entry and
                returns a transformed version
            checksum: if True, read every file once (slow): the publisher gives no checksums

        Raises:
            AssertionError: If *classes* is invalid.
            DatasetNotFoundError: If dataset is not found.
        """
        assert set(classes or ()) <= set(self.classes)
        self.root = root
        self.transforms = transforms
        self.checksum = checksum
        self.files = [
            path
            for name in self.classes
            if classes is None or name in classes
            for path in sorted((Path(root) / self.base_dir / name).glob("*.jpg"), key=number_of)
        ]
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
            image (float32, [3, H, W]) and label (long, [])
        """
        image = np.moveaxis(self.read(index), 2, 0)
        sample = {
            "image": torch.from_numpy(image.astype(np.float32)),
            "label": torch.tensor(self.label(index)),
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

    def read(self, index: int) -> NDArray[Any]:
        """Return the image ``[H, W, 3]`` in the file's dtype, as an array.

        Args:
            index: index to return

        Returns:
            image
        """
        return read_picture(self.files[index])

    def label(self, index: int) -> int:
        """Return the index of an image's class.

        Args:
            index: index to return

        Returns:
            label
        """
        return self.classes.index(self.files[index].parent.name)


def number_of(path: Path) -> int:
    """Return the number at the end of a file's name; -1 without one."""
    match = re.search(r"\d+$", path.stem)
    return int(match[0]) if match else -1


class SceneFoldersAdapter(ArchiveAdapter):
    """Base of the adapters of such archives; the labels are the scene class, one of L.

    Attributes:
        dataset_type: The dataset that is read through.
        sketch_count: Images per class in a sketch.
        sketch_side: Their height and width.
        sketch_look: Their look.
        sketch_scenes: What each class is drawn as, and how large things are.
    """

    splits = ("train",)
    dataset_type: ClassVar[type[SceneFolders]]
    sketch_count: ClassVar[int]
    sketch_side: ClassVar[int]
    sketch_look: ClassVar[Look]
    sketch_scenes: ClassVar[dict[str, tuple[str, float]]]

    @staticmethod
    @abstractmethod
    def _file_name(scene_class: str, number: int) -> str:
        """Return the name of an image of a class by its number, from 1."""

    def _wanted(self) -> tuple[str, ...]:
        return self.classes

    def _count(self, found: int) -> int:
        """Return how many images a class must have, given how many were found."""
        return found

    def _list(self) -> list[Path]:
        base = self.root / self.dataset_type.base_dir
        for scene_class in self._wanted():
            folder = base / scene_class
            found = [number_of(path) for path in folder.glob("*.jpg")] if folder.is_dir() else []
            if not found:
                raise self.missing(f"{folder} holds no *.jpg")
            # Numbered without a gap, so that a lost file shows.
            last = max(found) if self.is_sketch else self._count(max(found))
            self._demand([folder / self._file_name(scene_class, i + 1) for i in range(last)])
        self.dataset = self.dataset_type(self.root, self._wanted())
        return self.dataset.files

    def _read(self, index: int, with_labels: bool) -> Scene:
        image = self.dataset.read(index)
        if not with_labels:
            return Scene(image)
        labels = np.zeros(len(self.classes), np.uint8)
        labels[self.dataset.label(index)] = 1
        return Scene(image, labels=labels)

    @classmethod
    def write_sketch(cls, data_root: Path, rng: np.random.Generator) -> None:
        """Write a few small images of every class."""
        with sketch_folder(data_root, cls.folder) as root:
            for scene_class in cls.classes:
                scene, size = cls.sketch_scenes[scene_class]
                for number in range(1, cls.sketch_count + 1):
                    canvas = Canvas(cls.sketch_side, cls.sketch_side, rng)
                    SCENES[scene](canvas, size)
                    write_picture(
                        root
                        / cls.dataset_type.base_dir
                        / scene_class
                        / cls._file_name(scene_class, number),
                        canvas.render(cls.sensor, cls.sketch_look),
                        quality=90,
                    )
