"""Archives of scene classification: one folder of JPEGs for each class."""

import re
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

import numpy as np

from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.files import write_picture
from rscl_bench.archives.listing import pictures_in, plain_name
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.painting.scenes import SCENES


class SceneFoldersAdapter(DatasetAdapter):
    """Base of the adapters of ``<image_folder>/<class>/<picture>.jpg``; ``train`` is all of it.

    The label of an image is its scene class: one 1 among ``[L]``. The images of a class are
    numbered from 1 without a gap, so that a lost file is noticed.

    Attributes:
        image_folder: Folder below ``folder`` that holds the folders of the classes.
        images_per_class: Number of images of each class; None if the numbers of the files decide.
        sketch_count: Images per class in a sketch.
        sketch_side: Height and width of the images of a sketch, in pixels.
        sketch_look: Look of the images of a sketch.
        sketch_scenes: Class to the name of the scene that a sketch shows, and its size of objects.
    """

    splits: ClassVar[tuple[str, ...]] = ("train",)
    formats = ("JPEG",)
    image_folder: ClassVar[str]
    images_per_class: ClassVar[int | None] = None
    sketch_count: ClassVar[int]
    sketch_side: ClassVar[int]
    sketch_look: ClassVar[Look]
    sketch_scenes: ClassVar[dict[str, tuple[str, float]]]

    @staticmethod
    @abstractmethod
    def _file_name(scene_class: str, number: int) -> str:
        """Return the file name of the image of a class with a number, from 1."""

    def _selected_classes(self) -> tuple[str, ...]:
        """Return the classes to read, in the order of ``classes``."""
        return self.classes

    def _list_files(self) -> list[Path]:
        files: list[Path] = []
        for scene_class in self._selected_classes():
            folder = self.root / self.image_folder / scene_class
            count = max((_number_of(name) for name in self._numbered(scene_class)), default=0)
            if count < 1:
                raise self.missing(f"{folder} holds no numbered *.jpg")
            if self.images_per_class is not None and not self.is_sketch:
                count = self.images_per_class
            names = [self._file_name(scene_class, i) for i in range(1, count + 1)]
            files += self._of_split(self._require_pictures(folder, names))
        return files

    def _of_split(self, files: list[Path]) -> list[Path]:
        """Return those of all images of one class, in number order, that the split reads."""
        return files

    def _numbered(self, scene_class: str) -> list[str]:
        """Return the names in the folder of a class that are names of the class's pictures."""
        folder = self.root / self.image_folder / scene_class
        names = (plain_name(name) for name in pictures_in(folder, ".jpg"))
        return [name for name in names if name == self._file_name(scene_class, _number_of(name))]

    def _read(self, index: int, with_labels: bool) -> Scene:
        path = self.files[index]
        image = self.read_image(path)
        if not with_labels:
            return Scene(image)
        labels = np.zeros(len(self.classes), np.uint8)
        labels[self.classes.index(path.parent.name)] = 1
        return Scene(image, labels=labels)

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        for scene_class in cls.classes:
            scene, size = cls.sketch_scenes[scene_class]
            for number in range(1, cls.sketch_count + 1):
                canvas = Canvas(cls.sketch_side, cls.sketch_side, rng)
                SCENES[scene](canvas, size)
                write_picture(
                    root / cls.image_folder / scene_class / cls._file_name(scene_class, number),
                    canvas.render(cls.sensor, cls.sketch_look),
                    quality=90,
                )


def _number_of(name: str) -> int:
    """Return the number at the end of a file's name, or 0 if the name has none."""
    match = re.search(r"[0-9]+$", Path(name).stem)
    return int(match[0]) if match else 0
