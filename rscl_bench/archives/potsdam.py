"""Potsdam: orthophotos at 5 cm with 6-class masks (ISPRS 2D semantic labelling).

Layout, splits, classes and colours are those of TorchGeo's ``Potsdam2D``. The adapter reads the
files itself: it keeps the stored dtype, names a missing file where TorchGeo skips the file, and
does not map an unknown colour to class 0.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torchgeo.datasets import Potsdam2D

from rscl_bench import sensors
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.files import read_tiff, write_tiff
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.painting.scenes import districts
from rscl_bench.errors import ArchiveError

_SPLITS: dict[str, list[str]] = {
    **Potsdam2D.splits,
    "paper-train": [*Potsdam2D.splits["train"], *Potsdam2D.splits["test"][:6]],
    "paper-val": Potsdam2D.splits["test"][6:8],
}

#: Largest share of the pixels of a mask whose colour may be no class.
MAX_UNDEFINED = 0.01
#: A channel that differs by less from 128 is rounded neither to 0 nor to 255.
UNDECIDED = 32


class PotsdamAdapter(DatasetAdapter):
    """Potsdam's 4-band orthophotos and 6-class masks.

    ``train`` and ``test`` are TorchGeo's 24 and 14 frames. ``paper-train`` and ``paper-val`` have
    the sizes of the CoSMAE paper's splits: 30 and 2 frames of 23 × 23 tiles of 256 pixels (15,870
    and 1,058 tiles). The paper does not name its frames. Here, ``paper-train`` is the training
    frames and the first six test frames in TorchGeo's order, and ``paper-val`` the next two.
    """

    name = "potsdam"
    folder = "potsdam"
    title = "ISPRS Potsdam 2D semantic labelling"
    sensor = sensors.POTSDAM_RGBIR
    classes = (
        "clutter",
        "impervious-surfaces",
        "building",
        "low-vegetation",
        "tree",
        "car",
    )
    splits = tuple(_SPLITS)
    formats = ("TIFF",)
    source = "https://www.isprs.org/education/benchmarks/UrbanSemLab/2d-sem-label-potsdam.aspx"
    licence = "research use, on request from ISPRS; see the source"
    layout = (
        "4_Ortho_RGBIR/top_potsdam_2_10_RGBIR.tif and so on (4_Ortho_RGBIR.zip), and "
        "top_potsdam_2_10_label.tif and so on (5_Labels_all.zip) beside that folder"
    )
    images = "38 true orthophotos, TIFFs of 6000 × 6000 pixels"
    notes = (
        "`train` and `test` are TorchGeo's 24 and 14 frames. `paper-train` and `paper-val` have 30 "
        "and 2 frames, as in the CoSMAE paper, which does not name its frames.",
        "Every channel of a mask is rounded to 0 or 255, because some published masks are not "
        "exact. A mask with more than 1 % of undecided pixels is refused.",
    )

    def _list_files(self) -> list[Path]:
        names = _SPLITS[self.split]
        images = [self.root / Potsdam2D.image_root / f"{name}_RGBIR.tif" for name in names]
        self.masks = [self.root / f"{name}_label.tif" for name in names]
        self._require_files([*images, *self.masks])
        return images

    def inputs(self) -> list[Path]:
        """Return images and masks."""
        return [*self.files, *self.masks]

    def label_files(self) -> list[Path]:
        """Return the masks."""
        return list(self.masks)

    def _read(self, index: int, with_labels: bool) -> Scene:
        image = self.read_image(self.files[index])
        return Scene(image, mask=self._read_mask(self.masks[index]) if with_labels else None)

    def _read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Return the class index of every pixel, ``[H, W]``, after rounding channels to 0 or 255.

        The published masks need the rounding: ``top_potsdam_4_12_label.tif`` was compressed with
        loss and has none of the exact colours, and most cars of ``top_potsdam_6_7_label.tif`` are
        (252, 255, 0). Users who rounded report that no pixel of the archive is within 40 of the
        middle, and that no pixel rounds to black or magenta, the two corners without a class.
        """
        colours = read_tiff(path, nodata="keep", max_pixels=self.max_pixels)
        if colours.shape[2] != 3 or colours.dtype != np.uint8:
            raise ArchiveError(
                f"{path} has {colours.shape[2]} bands of {colours.dtype} where the masks of "
                f"{self.title} have 3 of uint8; fetch it again from {self.source}."
            )
        mask = _CORNERS[_corner(colours)]
        undecided = (np.abs(colours.astype(np.int16) - 128) < UNDECIDED).any(axis=2)
        mask[undecided] = 255
        share = float((mask == 255).mean())
        if share > MAX_UNDEFINED:
            raise self.damaged(
                f"{share:.1%} of the pixels of {path} have a colour that is no class of "
                f"{self.title}"
            )
        return mask

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Draw all 38 frames, each 512 × 512 pixels instead of 6000 × 6000."""
        colours = np.array(Potsdam2D.colormap, np.uint8)
        table = {material: cls.classes.index(name) for material, name in _MATERIAL_CLASS.items()}
        for name in (*Potsdam2D.splits["train"], *Potsdam2D.splits["test"]):
            canvas = Canvas(512, 512, rng)
            districts(canvas, _SCENES, side=128, size=3.0)
            write_tiff(
                root / Potsdam2D.image_root / f"{name}_RGBIR.tif",
                canvas.render(cls.sensor, _LOOK),
                compress="jpeg",
                interleave="pixel",
            )
            write_tiff(
                root / f"{name}_label.tif",
                colours[canvas.classes(table)],
                compress="deflate",
                zlevel=1,
                interleave="pixel",
            )


def _corner(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the index, 0 to 7, of the colour cube's corner nearest to colours ``[..., 3]``."""
    bits = (colours >= 128).astype(np.uint8)
    corner: NDArray[np.uint8] = bits[..., 0] * np.uint8(4) + bits[..., 1] * np.uint8(2)
    return corner + bits[..., 2]


_CORNERS = np.full(8, 255, np.uint8)
_CORNERS[_corner(np.array(Potsdam2D.colormap, np.uint8))] = np.arange(len(Potsdam2D.colormap))

_LOOK = Look(middle=0.45, contrast=0.14)
_SCENES = (
    "residential",
    "industrial",
    "road",
    "meadow",
    "farmland",
    "courts",
    "golf",
    "chaparral",
)
_MATERIAL_CLASS = {
    "soil": "clutter",
    "clutter": "clutter",
    "court": "clutter",
    "sand": "clutter",
    "water": "clutter",
    "pavement": "impervious-surfaces",
    "bridge": "impervious-surfaces",
    "building": "building",
    "building-red": "building",
    "building-white": "building",
    "grass": "low-vegetation",
    "field": "low-vegetation",
    "chaparral": "low-vegetation",
    "trees": "tree",
    "car": "car",
    "moving-car": "car",
}
