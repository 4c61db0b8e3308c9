"""UAVid 1.5: oblique drone video frames of streets with 8-class masks.

The layout was checked against public loaders and copies of version 1.5 (200, 70 and 150 images in
sequences of 10 frames whose numbers are 100 apart), and the mask colours against several loaders.
The classes are those of the paper.
"""

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rscl_bench import sensors
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.files import read_picture, write_picture
from rscl_bench.archives.listing import names_in, pictures_in, plain_name
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.painting.scenes import districts
from rscl_bench.errors import SpecError

#: Class to its colour in the masks.
COLOURS = {
    "background-clutter": (0, 0, 0),
    "building": (128, 0, 0),
    "road": (128, 64, 128),
    "static-car": (192, 0, 192),
    "tree": (0, 128, 0),
    "low-vegetation": (128, 128, 0),
    "human": (64, 64, 0),
    "moving-car": (64, 0, 128),
}
#: Split to its number of sequences.
SEQUENCES = {"train": 20, "val": 7, "test": 15}
#: File names of the frames of a sequence.
FRAMES = tuple(f"{100 * i:06d}.png" for i in range(10))
#: Folder at the top of the published ZIP file.
_ZIP_FOLDER = "uavid_v1.5_official_release_image"


class UAVidAdapter(DatasetAdapter):
    """UAVid's frames and 8-class masks.

    Cut into whole 256-pixel tiles, the 200 training frames give 24,560 tiles and the 70 validation
    frames 8,640, the CoSMAE paper's numbers. A frame of 3840 × 2160 gives 15 × 8 = 120 tiles, one
    of 4096 × 2160 gives 16 × 8 = 128; the training split has 130 and 70 such frames, the
    validation split 40 and 30.
    """

    name = "uavid"
    folder = "uavid"
    title = "UAVid"
    sensor = sensors.UAVID_RGB
    classes = tuple(COLOURS)
    splits = tuple(SEQUENCES)
    formats = ("PNG",)
    source = "https://uavid.nl/"
    licence = "CC BY-NC-SA 4.0"
    layout = "uavid_train/seq1/Images/000000.png, uavid_train/seq1/Labels/000000.png and so on"
    images = "oblique drone frames, PNGs of 3840 × 2160 or 4096 × 2160 pixels, from about 50 m"
    notes = (
        "The splits have 200, 70 and 150 frames, in 20, 7 and 15 sequences of 10. The masks of "
        "`test` are not public.",
    )
    citations = ("https://doi.org/10.1016/j.isprsjprs.2020.05.009",)

    def _list_files(self) -> list[Path]:
        split_folder = f"uavid_{self.split}"
        parents = [p for p in (self.root, self.root / _ZIP_FOLDER) if (p / split_folder).is_dir()]
        if not parents:
            raise self.missing(f"{self.root} has no {split_folder}/seq*/Images/*.png")
        folder = parents[0] / split_folder
        numbers = [re.fullmatch(r"seq([0-9]+)", name) for name in names_in(folder)]
        found = sorted((match for match in numbers if match), key=lambda match: int(match[1]))
        sequences = [folder / match[0] for match in found]
        files = []
        for sequence in sequences:
            held = {plain_name(name) for name in pictures_in(sequence / "Images", ".png")}
            names = [name for name in FRAMES if name in held] if self.is_sketch else FRAMES
            files += self._require_pictures(sequence / "Images", names)
        self.masks = [] if self.split == "test" else [_mask_of(image) for image in files]
        self._require_files(self.masks)
        self._require_count(len(sequences), SEQUENCES[self.split], f"{self.split} sequences")
        return files

    def inputs(self) -> list[Path]:
        """Return images and masks."""
        return [*self.files, *self.masks]

    def label_files(self) -> list[Path]:
        """Return the masks."""
        return list(self.masks)

    def canonical_path(self, path: Path) -> str:
        """Return the path below the folder at the top of the published ZIP file."""
        return super().canonical_path(path).removeprefix(f"{_ZIP_FOLDER}/")

    def _read(self, index: int, with_labels: bool) -> Scene:
        if with_labels and self.split == "test":
            raise SpecError("The labels of UAVid's split 'test' are not public; use 'val'.")
        image = self.read_image(self.files[index])
        return Scene(image, mask=self._read_mask(self.masks[index]) if with_labels else None)

    def _read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Return the class index of every pixel, ``[H, W]``; an unknown colour is refused."""
        colours = read_picture(path, "RGB")
        codes = _packed(colours)
        class_codes = _packed(np.array(list(COLOURS.values()), np.uint8))
        order = np.argsort(class_codes)
        positions = np.searchsorted(class_codes[order], codes).clip(max=len(order) - 1)
        mask: NDArray[np.uint8] = order[positions].astype(np.uint8)
        wrong = class_codes[mask] != codes
        if wrong.any():
            y, x = np.argwhere(wrong)[0]
            colour = tuple(colours[y, x].tolist())
            raise self.damaged(
                f"{path} holds the colour {colour} at row {y}, column {x}, which is no class"
            )
        return mask

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Draw frames of 1024 × 768 pixels: 8 for training, 3 for validation, 1 for testing."""
        frames = [
            *(("train", f"seq{n}", frame) for n in range(1, 5) for frame in FRAMES[:2]),
            *(("val", f"seq{n}", FRAMES[0]) for n in (16, 17, 18)),
            ("test", "seq21", FRAMES[0]),
        ]
        colours = np.array(list(COLOURS.values()), np.uint8)
        table = {material: cls.classes.index(name) for material, name in _MATERIAL_CLASS.items()}
        for split, sequence, frame in frames:
            canvas = Canvas(768, 1024, rng)
            districts(canvas, _SCENES, side=128, size=3.0)
            canvas.boxes("human", 60, (1, 2))
            _tilt(canvas)
            path = root / f"uavid_{split}" / sequence / "Images" / frame
            write_picture(path, canvas.render(cls.sensor, _LOOK), compress_level=1)
            if split != "test":
                mask = colours[canvas.classes(table)]
                write_picture(_mask_of(path), mask, compress_level=1)


def _mask_of(image: Path) -> Path:
    return image.parent.parent / "Labels" / plain_name(image.name)


def _packed(colours: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Pack colours ``[..., 3]`` into one integer each, ``[...]``."""
    wide = colours.astype(np.int32)
    packed: NDArray[np.int32] = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
    return packed


def _tilt(canvas: Canvas) -> None:
    """Compress the rows at the top, as in the view of an oblique camera."""
    height = canvas.cover.shape[0]
    rows = (height * (np.arange(height) / height) ** 0.6).astype(np.intp)
    canvas.cover = canvas.cover[rows]
    canvas.level = canvas.level[rows]
    canvas.light = canvas.light[rows]


_LOOK = Look(middle=0.40, contrast=0.14)
_SCENES = (
    "residential",
    "road",
    "parking",
    "industrial",
    "meadow",
    "forest",
    "farmland",
    "mobile-homes",
)
_MATERIAL_CLASS = {
    "soil": "background-clutter",
    "sand": "background-clutter",
    "clutter": "background-clutter",
    "water": "background-clutter",
    "court": "background-clutter",
    "building": "building",
    "building-red": "building",
    "building-white": "building",
    "mobile-home": "building",
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
