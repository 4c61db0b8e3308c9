"""US3D: WorldView-3 images of Jacksonville and Omaha with land-cover masks (IEEE DFC 2019).

The layout was checked against the publisher's repository (github.com/pubgeo/dfc2019: the table of
zip files, file types and class codes in ``data/README.md``, ``update_msi.py``, the torrents' file
lists) and against public loaders that were run on the real archive. The counts are those of these
loaders.
"""

import json
import re
import warnings
from dataclasses import replace
from fnmatch import fnmatchcase
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from rscl_bench import sensors
from rscl_bench.archives.adapter import UNDEFINED, DatasetAdapter, Scene
from rscl_bench.archives.files import open_image, read_tiff, write_tiff
from rscl_bench.archives.listing import names_in, pictures_in, plain_name
from rscl_bench.archives.painting.canvas import Canvas
from rscl_bench.archives.painting.materials import Look
from rscl_bench.archives.painting.scenes import districts
from rscl_bench.errors import ArchiveError
from rscl_bench.spec import Spec

#: Class to its LAS code in the masks.
CODES = {"ground": 2, "high-vegetation": 5, "building": 6, "water": 9, "elevated-road": 17}
#: LAS code of pixels without a label.
UNLABELED = 65
#: Number of MSI files of the archive.
IMAGES = 2783
_DESCRIPTION_TAG = 270
_IMAGE = re.compile(r"(JAX|OMA)_[0-9]+_[0-9]+_MSI\.tif")


class US3DOptions(Spec):
    """The options of US3D."""

    cities: Annotated[
        tuple[Literal["JAX", "OMA"], ...],
        Field(min_length=1, description="`JAX` (Jacksonville), `OMA` (Omaha) or both, the default"),
    ] = ("JAX", "OMA")


class US3DAdapter(DatasetAdapter):
    """US3D's 8-band images and 5-class masks.

    The publisher gives no masks of the contest's validation set, so both splits are of its
    training set. One location in eight is held out, chosen by a hash of its name, so that no
    ground is in both splits.

    The CoSMAE paper's 21,081 training and 3,072 validation tiles cannot be rebuilt: the paper does
    not name its images. 3,072 tiles are 192 whole images of 16 tiles, but 21,081 is no multiple of
    16; the public archive gives 2,783 × 16 = 44,528 tiles.
    """

    name = "us3d"
    folder = "us3d"
    title = "US3D (IEEE Data Fusion Contest 2019, Track 1)"
    sensor = sensors.WORLDVIEW3
    classes = tuple(CODES)
    splits = ("train", "val")
    formats = ("TIFF",)
    source = "https://ieee-dataport.org/open-access/data-fusion-contest-2019-dfc2019"
    licence = "free for research with citation; images courtesy of DigitalGlobe, see the source"
    layout = (
        "Track1-MSI-1/*_MSI.tif to Track1-MSI-3/*_MSI.tif and, for labels, Track1-Truth/*_CLS.tif "
        "(the unpacked Train-Track1-MSI-1.zip to -3.zip and Train-Track1-Truth.zip)"
    )
    images = "2,783 pan-sharpened TIFFs of 1024 × 1024 pixels, of 108 locations and many dates"
    notes = (
        "`val` is one location in eight, so that no ground is in both splits.",
        "The folders of the MSI files may be merged into `Track1-MSI`. Both forms of the MSI files "
        "are read: as published, and as the publisher's `update_msi.py` rewrites them.",
        "The RGB images, the heights and the images of `Validate-Track1` are not read.",
    )
    citations = (
        "https://doi.org/10.21227/c6tm-vw12",
        "https://doi.org/10.1109/WACV.2019.00167",
    )
    Options = US3DOptions

    def _list_files(self) -> list[Path]:
        images = self._images()
        if not images:
            raise self.missing(f"{self.root} has no Track1-MSI*/*_MSI.tif")
        self._require_count(len(images), IMAGES, "files *_MSI.tif")
        files = [path for name, path in sorted(images.items()) if self._is_selected(name)]
        masks = {
            plain_name(name): folder / name
            for folder in self._folders("Track1-Truth")
            for name in pictures_in(folder, ".tif")
        }
        self.masks = [masks.get(_mask_name(path)) for path in files] if masks else []
        if None in self.masks:
            image = files[self.masks.index(None)]
            raise self.missing(f"{_mask_name(image)}, the mask of {image}, does not exist")
        return files

    def _images(self) -> dict[str, Path]:
        """Return the path of each MSI file by its name; a copy of one is refused."""
        images: dict[str, Path] = {}
        for folder in self._folders("Track1-MSI*"):
            for spelled in pictures_in(folder, ".tif"):
                name, path = plain_name(spelled), folder / spelled
                if not _IMAGE.fullmatch(name):
                    raise ArchiveError(f"{path} is no part of {self.title}; move it away.")
                if name in images:
                    raise ArchiveError(
                        f"{path} has the name of {images[name]}; move one of them away."
                    )
                images[name] = path
        return images

    def _folders(self, name: str) -> list[Path]:
        """Return the folders of a name at the root or one level below, as ZIPs are unpacked."""
        levels = (self.root, *(self.root / inner for inner in names_in(self.root)))
        return [
            level / inner
            for level in levels
            for inner in names_in(level)
            if fnmatchcase(inner, name) and (level / inner).is_dir()
        ]

    def _is_selected(self, file_name: str) -> bool:
        """Return whether an image such as ``JAX_004_006_MSI.tif`` is of the split and cities."""
        city, location, _ = file_name.split("_", 2)
        cities: tuple[str, ...] = self.options.cities  # type: ignore[attr-defined]
        return city in cities and split_of(f"{city}_{location}") == self.split

    def inputs(self) -> list[Path]:
        """Return the images, and the masks if the archive has them."""
        return [*self.files, *self.label_files()]

    def label_files(self) -> list[Path]:
        """Return the masks, if the archive has them."""
        return [mask for mask in self.masks if mask is not None]

    def canonical_path(self, path: Path) -> str:
        """Return the path as if all images lay in ``Track1-MSI``, and at no other level."""
        folder = path.parent.name
        return f"{'Track1-MSI' if folder.startswith('Track1-MSI') else folder}/{path.name}"

    def _read(self, index: int, with_labels: bool) -> Scene:
        image = self._read_msi(self.files[index])
        if not with_labels:
            return Scene(image)
        mask = self.masks[index] if self.masks else None
        if mask is None:
            raise self.missing(f"{self.root} has no Track1-Truth/*_CLS.tif, which hold the labels")
        return Scene(image, mask=self._read_mask(mask))

    def _read_msi(self, path: Path) -> NDArray[Any]:
        """Read an 8-band image, ``[H, W, 8]``, written by GDAL or by tifffile.

        tifffile took ``[H, W, 8]`` for a stack of images: the published files have H pages of W
        rows and 8 columns, and the true shape as JSON in the description of the first page. GDAL
        reads such a file as one band, 8 pixels wide.
        """
        with open_image(path, self.formats) as image:
            header = image.header
            if (header.width, header.bands) == (8, 1):
                with Image.open(path, formats=("TIFF",)) as pages:
                    shape = _paged_shape(pages, header.height)
                    if shape is not None:
                        size = replace(header, width=shape[1], height=shape[0], bands=8)
                        size.require_at_most(self.max_pixels, max_bands=8)
                        self._check_type(path, 8, header.dtype)
                        return _stacked(pages, shape, header.dtype)
        return self.read_image(path)

    def _read_mask(self, path: Path) -> NDArray[np.uint8]:
        """Return the class index of every pixel, ``[H, W]``, 255 where unlabeled."""
        codes = read_tiff(path, nodata="keep", max_pixels=self.max_pixels)[:, :, 0]
        unknown = sorted(set(np.unique(codes).tolist()) - {*CODES.values(), UNLABELED})
        if unknown:
            raise self.damaged(f"{path} holds the codes {unknown}, which are no class")
        if codes.dtype != np.uint8:
            codes = codes.astype(np.uint8)
        table = np.full(256, UNDEFINED, np.uint8)
        table[list(CODES.values())] = range(len(CODES))
        mask: NDArray[np.uint8] = table[codes]
        return mask

    @classmethod
    def _draw_sketch(cls, root: Path, rng: np.random.Generator) -> None:
        """Draw 6 training and 2 validation images of 1024 × 1024 pixels, RGB and MSI.

        The MSI files have the form that ``update_msi.py`` gives them, because the published form is
        not compressed.
        """
        left = {"train": 6, "val": 2}
        for number in range(4, 1000):
            location = f"JAX_{number:03d}"
            split = split_of(location)
            if left[split]:
                left[split] -= 1
                cls._draw_image(root, f"{location}_006", rng)
            if not any(left.values()):
                return

    @classmethod
    def _draw_image(cls, root: Path, stem: str, rng: np.random.Generator) -> None:
        canvas = Canvas(1024, 1024, rng)
        districts(canvas, _SCENES, side=128, size=3.0)
        options = {"compress": "deflate", "zlevel": 1, "interleave": "pixel"}
        msi = canvas.render(cls.sensor, _LOOK)
        write_tiff(root / "Track1-MSI-1" / f"{stem}_MSI.tif", msi, **options)
        rgb = msi[:, :, cls.sensor.indices(("red", "green", "blue"))]
        rgb = np.minimum(rgb // 5, 255).astype(np.uint8)
        write_tiff(root / "Track1-RGB" / f"{stem}_RGB.tif", rgb, **options)
        mask = canvas.classes({m: CODES[name] for m, name in _MATERIAL_CLASS.items()})[:, :, None]
        # Every real mask has unlabeled pixels, because lidar does not reach everywhere.
        mask[:16, :16] = UNLABELED
        write_tiff(root / "Track1-Truth" / f"{stem}_CLS.tif", mask, **options)


def split_of(location: str) -> str:
    """Return the split of a location such as ``JAX_004``: ``val`` for one in eight."""
    return "val" if sha256(location.encode()).digest()[0] % 8 == 0 else "train"


def _mask_name(image: Path) -> str:
    return plain_name(image.name).removesuffix("_MSI.tif") + "_CLS.tif"


def _paged_shape(pages: Image.Image, width: int) -> tuple[int, int, int] | None:
    """Return the shape that tifffile wrote into the first of ``pages``; None if it wrote none."""
    description = str(pages.tag_v2.get(_DESCRIPTION_TAG, ""))  # type: ignore[attr-defined]
    try:
        rows, columns, bands = json.loads(description)["shape"]
    except (ValueError, KeyError, TypeError):
        return None
    fits = isinstance(rows, int) and rows > 0 and (columns, bands) == (width, 8)
    return (rows, columns, bands) if fits else None


def _stacked(pages: Image.Image, shape: tuple[int, int, int], dtype: str) -> NDArray[Any]:
    """Read every page as one row of an image of a shape ``[H, W, 8]``."""
    full = np.empty(shape, dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow only warns if the tags of a page are cut off
        for row in range(shape[0]):
            pages.seek(row)  # raises EOFError where the file ends early
            full[row] = np.asarray(pages)
    return full


_LOOK = Look(middle=0.30, contrast=0.09)
_SCENES = (
    "residential",
    "industrial",
    "farmland",
    "river",
    "forest",
    "road",
    "pond",
    "beach",
    "chaparral",
)
_MATERIAL_CLASS = {
    "soil": "ground",
    "grass": "ground",
    "field": "ground",
    "chaparral": "ground",
    "sand": "ground",
    "pavement": "ground",
    "car": "ground",
    "moving-car": "ground",
    "clutter": "ground",
    "trees": "high-vegetation",
    "building": "building",
    "building-red": "building",
    "building-white": "building",
    "water": "water",
    "sea": "water",
    "bridge": "elevated-road",
}
