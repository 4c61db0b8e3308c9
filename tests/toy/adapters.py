"""Small datasets: `Toy` for training and probing, `Masked` for packing."""

from pathlib import Path

import numpy as np
from PIL import Image

from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.sensors import RGB8, Band, Sensor


class Toy(DatasetAdapter):
    """Random RGB tiles in three splits; the number of a tile decides its two labels."""

    name = "toy"
    folder = "toy"
    title = "Toy"
    sensor = RGB8
    classes = ("red", "green")
    splits = ("train", "val", "test")
    source = "the generator of this test"
    licence = "MIT"
    layout = "SPLIT/NUMBER.png"

    def _list_files(self) -> list[Path]:
        return sorted((self.root / self.split).glob("*.png"))

    def _read(self, index: int, with_labels: bool) -> Scene:
        with Image.open(self.files[index]) as opened:
            image = np.asarray(opened.convert("RGB"))
        number = int(self.files[index].stem)
        return Scene(image, labels=np.array([number % 2, number // 2 % 2], np.uint8))

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        for split in cls.splits:
            (root / split).mkdir(parents=True)
            for number in range(20):
                pixels = rng.integers(0, 255, (24, 24, 3), dtype=np.uint8)
                # Halved, not black, so that a probe does not score 1.
                pixels[:2, :, 0] //= 1 + number % 2
                pixels[:, :2, 1] //= 1 + number // 2 % 2
                Image.fromarray(pixels).save(root / split / f"{number:03d}.png")


class Watched(Toy):
    """`Toy` with a file ``read`` beside the archive that lists the indices of the images read."""

    name = "watched"

    def _read(self, index: int, with_labels: bool) -> Scene:
        with (self.root.parent / "read").open("a") as file:  # several processes append
            file.write(f"{index}\n")
        return super()._read(index, with_labels)


class Masked(DatasetAdapter):
    """uint16 arrays of four bands with masks of three classes, in ``.npy`` files."""

    name = "masked"
    folder = "masked"
    title = "Masked"
    sensor = Sensor(
        "four", tuple(Band(n, 500.0) for n in ("a", "b", "c", "d")), "count", "uint16", 4095.0, 1.0
    )
    classes = ("low", "middle", "high")
    splits = ("train",)
    source = "the generator of this test"
    licence = "MIT"
    layout = "NUMBER.npy and NUMBER.mask"

    def _list_files(self) -> list[Path]:
        return sorted(self.root.glob("*.npy"))

    def inputs(self) -> list[Path]:
        return [*self.files, *self.label_files()]

    def label_files(self) -> list[Path]:
        return [path.with_suffix(".mask") for path in self.files]

    def _read(self, index: int, with_labels: bool) -> Scene:
        path = self.files[index]
        image = np.load(path, allow_pickle=False)
        if not with_labels:
            return Scene(image)
        with path.with_suffix(".mask").open("rb") as file:
            return Scene(image, mask=np.load(file, allow_pickle=False))

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        for number, (height, width) in enumerate([(20, 31), (8, 8), (17, 9)]):
            image = rng.integers(0, 4096, (height, width, 4), dtype=np.uint16)
            mask = rng.choice(np.array([0, 1, 2, 255], np.uint8), (height, width))
            write_masked(root.parent, number, image, mask)


def write_masked(
    data_root: Path,
    number: int,
    image: np.ndarray[tuple[int, ...], np.dtype[np.uint16]],
    mask: np.ndarray[tuple[int, ...], np.dtype[np.uint8]],
) -> None:
    folder = data_root / Masked.folder
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{number}.npy", image)
    with (folder / f"{number}.mask").open("wb") as file:
        np.save(file, mask)
