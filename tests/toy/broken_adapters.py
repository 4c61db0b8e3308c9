"""Dataset adapters that break their contract in one way each."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.download import RemoteFile
from rscl_bench.errors import ArchiveError, SpecError
from rscl_bench.sensors import RGB8, Band, Sensor


class Sound(DatasetAdapter):
    """A sound adapter of eight pictures in two splits, with a table of labels."""

    name = "sound"
    folder = "sound"
    title = "Sound"
    sensor = RGB8
    classes = ("dark", "bright")
    splits = ("train", "test")
    source = "the generator of this test"
    licence = "MIT"
    layout = "SPLIT/NUMBER.png and labels.csv"

    def _list_files(self) -> list[Path]:
        return sorted((self.root / self.split).glob("*.png"))

    def inputs(self) -> list[Path]:
        return [*self.files, self.root / "labels.csv"]

    def label_files(self) -> list[Path]:
        return [self.root / "labels.csv"]

    def _read(self, index: int, with_labels: bool) -> Scene:
        with Image.open(self.files[index]) as picture:
            image = np.asarray(picture)
        return Scene(image, labels=self.label(self.files[index]) if with_labels else None)

    def label(self, path: Path) -> Any:
        with (self.root / "labels.csv").open(encoding="utf-8") as file:
            labels = {name: [int(dark), int(bright)] for name, dark, bright in csv.reader(file)}
        return np.array(labels[path.stem], np.uint8)

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        lines = []
        for number in range(8):
            path = root / cls.splits[number % 2] / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            pixels = rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path)
            lines.append(f"{number},{number % 3 // 2},{number // 2 % 2}")
        (root / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")


class DownloadsOutside(Sound):
    """Its file would lie beside the archive's folder."""

    @classmethod
    def remote_files(cls, split: str, options: Any) -> list[RemoteFile]:
        return [RemoteFile("https://example.org/x.zip", "../x.zip")]


class UnpacksOutside(Sound):
    """Its file would be unpacked elsewhere."""

    @classmethod
    def remote_files(cls, split: str, options: Any) -> list[RemoteFile]:
        return [RemoteFile("https://example.org/x.zip", "x.zip", unpack_into="/srv")]


class HasNoAddress(Sound):
    """The address of its file is a path."""

    @classmethod
    def remote_files(cls, split: str, options: Any) -> list[RemoteFile]:
        return [RemoteFile("/srv/x.zip", "x.zip")]


class HasOddDigest(Sound):
    """The digest of its file has no kind."""

    @classmethod
    def remote_files(cls, split: str, options: Any) -> list[RemoteFile]:
        return [RemoteFile("https://example.org/x.zip", "x.zip", "d41d8cd98f00b204")]


class HasNoSketch(DatasetAdapter):
    """What a user with real images writes: two methods."""

    name = "no-sketch"
    folder = "sound"
    title = "No sketch"
    sensor = RGB8
    classes = ("dark", "bright")
    splits = ("train", "test")
    source = "the generator of this test"
    licence = "MIT"
    layout = "SPLIT/NUMBER.png"

    def _list_files(self) -> list[Path]:
        return sorted((self.root / self.split).glob("*.png"))

    def _read(self, index: int, with_labels: bool) -> Scene:
        number = int(self.files[index].stem)
        labels = np.array([number % 3 // 2, number // 2 % 2], np.uint8)
        return Scene(self.read_image(self.files[index]), labels=labels if with_labels else None)


class HasNoLabels(HasNoSketch):
    def _read(self, index: int, with_labels: bool) -> Scene:
        return Scene(self.read_image(self.files[index]))


class LacksMethods(DatasetAdapter):
    name = "lacks-methods"


class OmitsLabelFile(Sound):
    def inputs(self) -> list[Path]:
        return list(self.files)


class OmitsImages(Sound):
    def inputs(self) -> list[Path]:
        return [self.root / "labels.csv"]


class ImagesAreLabelFiles(Sound):
    def label_files(self) -> list[Path]:
        return self.inputs()


class ForeignLabelFiles(Sound):
    def label_files(self) -> list[Path]:
        return [self.root / "SKETCH"]


class InventsInputs(Sound):
    def inputs(self) -> list[Path]:
        return [*super().inputs(), self.root / "no-such-file"]


class Shuffles(Sound):
    openings = 0

    def _list_files(self) -> list[Path]:
        Shuffles.openings += 1
        return super()._list_files()[:: (-1) ** Shuffles.openings]


class ListsTwice(Sound):
    def _list_files(self) -> list[Path]:
        return 2 * super()._list_files()


class ReadsNoise(Sound):
    def _read(self, index: int, with_labels: bool) -> Scene:
        scene = super()._read(index, with_labels)
        noise = np.random.default_rng().integers(0, 2, scene.image.shape, np.uint8)
        return Scene(scene.image ^ noise, scene.labels)


class WrongSensor(Sound):
    sensor = Sensor("grey", (Band("grey", 550.0),), "8-bit digital number", "uint8", 255.0, None)


class LabelsOfThree(Sound):
    def label(self, path: Path) -> Any:
        return np.array([1, 0, 1], np.uint8)


class LabelsAreCounts(Sound):
    def label(self, path: Path) -> Any:
        return 2 * super().label(path) + 2


class LabelsAreFloats(Sound):
    def label(self, path: Path) -> Any:
        return super().label(path).astype(np.float32)


class LabelsAndMask(Sound):
    def _read(self, index: int, with_labels: bool) -> Scene:
        scene = super()._read(index, with_labels)
        return Scene(scene.image, scene.labels, np.zeros(scene.image.shape[:2], np.uint8))


class HidesLabels(Sound):
    def label(self, path: Path) -> Any:
        raise SpecError("No labels here.")


class ReadsTruncated(Sound):
    def _read(self, index: int, with_labels: bool) -> Scene:
        ImageFile.LOAD_TRUNCATED_IMAGES = True
        try:
            return super()._read(index, with_labels)
        finally:
            ImageFile.LOAD_TRUNCATED_IMAGES = False


class RefusesWithoutName(Sound):
    def _read(self, index: int, with_labels: bool) -> Scene:
        try:
            return super()._read(index, with_labels)
        except OSError as error:
            raise ArchiveError("A file is damaged.") from error


class MissingWithoutSource(Sound):
    def missing(self, what: str) -> ArchiveError:
        return ArchiveError(f"{what}; see {self.layout}.")


class TwoFaults(LabelsAreCounts):
    def inputs(self) -> list[Path]:
        return list(self.files)
