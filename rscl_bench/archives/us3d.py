"""US3D: WorldView-3 images of Jacksonville and Omaha with land-cover masks (IEEE DFC 2019).

The layout was checked against the publisher's repository (github.com/pubgeo/dfc2019: the table of
zip files, file types and class codes in ``data/README.md``, ``update_msi.py``, the torrents' file
lists) and against public loaders that were run on the real archive, from which the counts are.
"""

import json
import os
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from torch import Tensor
from torchgeo.datasets import DatasetNotFoundError, NonGeoDataset

from rscl_bench import sensors
from rscl_bench.archives.adapter import Scene
from rscl_bench.archives.files import ArchiveAdapter, read_tiff, sketch_folder, write_tiff
from rscl_bench.archives.painting import Canvas, Look, districts
from rscl_bench.errors import ArchiveError
from rscl_bench.spec import Spec

_DESCRIPTION_TAG = 270


class US3D(NonGeoDataset):  # type: ignore[misc]  # torchgeo is followed as Any
    """Urban Semantic 3D (US3D), as in Track 1 of the 2019 IEEE GRSS Data Fusion Contest.

    The `US3D <https://ieee-dataport.org/open-access/data-fusion-contest-2019-dfc2019>`__ dataset
    has WorldView-3 images of Jacksonville (JAX) and Omaha (OMA) from many dates, with land-cover
    masks from airborne lidar.

    Dataset features:

    * 2,783 images of 1024 x 1024 pixels at about 0.3 m, of 108 locations
    * 3-band RGB images, and pan-sharpened 8-band VNIR images
    * a land-cover mask in the geometry of each image

    Dataset format:

    * images are GeoTIFFs without coordinates, ``Track1-RGB/JAX_004_006_RGB.tif`` (uint8) and
      ``Track1-MSI-1/JAX_004_006_MSI.tif`` (uint16); the MSI files come in three folders, ``-1`` to
      ``-3``, that may be merged into ``Track1-MSI``
    * masks are one-band GeoTIFFs, ``Track1-Truth/JAX_004_006_CLS.tif`` (uint8), of LAS codes
    * the publisher wrote the MSI files with tifffile as one page per row, which GDAL misreads;
      those and the files that the publisher's ``update_msi.py`` makes of them are both read

    Dataset classes (LAS code):

    0. Ground (2)
    1. High vegetation (5)
    2. Building (6)
    3. Water (9)
    4. Elevated road or bridge (17)

    Unlabeled pixels (65) are 255. The publisher gives no validation masks, so every image here is
    of the contest's training set; one location in eight is held out, chosen by a hash of its name,
    so that no ground is in both splits. The 50 images of ``Validate-Track1`` and the heights
    (``AGL``) are not read.

    If you use this dataset in your research, please cite the following papers:

    * https://doi.org/10.21227/c6tm-vw12
    * https://doi.org/10.1109/WACV.2019.00167
    """

    splits = ("train", "val")
    products = ("rgb", "msi")
    classes = ("ground", "high-vegetation", "building", "water", "elevated-road")
    codes: ClassVar[dict[int, int]] = {2: 0, 5: 1, 6: 2, 9: 3, 17: 4, 65: 255}
    archives: ClassVar[dict[str, tuple[str, ...]]] = {
        "rgb": ("Train-Track1-RGB.zip",),
        "msi": tuple(f"Train-Track1-MSI-{part}.zip" for part in (1, 2, 3)),
    }

    def __init__(
        self,
        root: str | os.PathLike[str] = "data",
        split: str = "train",
        product: str = "msi",
        cities: tuple[str, ...] = ("JAX", "OMA"),
        transforms: Callable[[dict[str, Tensor]], dict[str, Tensor]] | None = None,
        checksum: bool = False,
    ) -> None:
        """Initialize a new US3D dataset instance.

        Args:
            root: root directory where dataset can be found, with the zip files unpacked
            split: one of "train" or "val"
            product: one of "rgb" or "msi"
            cities: one or both of "JAX" and "OMA"
            transforms: a function/transform that takes input sample and its target as entry and
                returns a transformed version
            checksum: if True, read every file of the split once (slow): the publisher gives no
                checksums

        Raises:
            AssertionError: If *split*, *product* or *cities* is invalid.
            DatasetNotFoundError: If dataset is not found.
        """
        assert split in self.splits
        assert product in self.products
        assert cities
        assert set(cities) <= {"JAX", "OMA"}
        self.root = root
        self.split = split
        self.product = product
        self.transforms = transforms
        self.checksum = checksum

        suffix = f"_{product.upper()}.tif"
        found = {
            path.name: path
            for folder in self._folders(f"Track1-{product.upper()}*")
            for path in folder.glob(f"*{suffix}")
        }
        if not found:
            raise DatasetNotFoundError(self)
        self.count = len(found)
        truth = {
            path.name: path
            for folder in self._folders("Track1-Truth")
            for path in folder.glob("*_CLS.tif")
        }
        self.has_masks = bool(truth)
        self.files: list[dict[str, Path]] = []
        self.without_mask: list[Path] = []
        for name, path in sorted(found.items()):
            city, location, _ = name.split("_", 2)
            if city not in cities or self.split_of(f"{city}_{location}") != split:
                continue
            mask = truth.get(name.removesuffix(suffix) + "_CLS.tif")
            self.files.append({"image": path} if mask is None else {"image": path, "mask": mask})
            if mask is None:
                self.without_mask.append(path)
        if checksum:
            for index in range(len(self)):
                self.read(index)

    @staticmethod
    def split_of(location: str) -> str:
        """Return the split of a location such as "JAX_004": one in eight is "val"."""
        return "val" if sha256(location.encode()).digest()[0] % 8 == 0 else "train"

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """Return an index within the dataset.

        Args:
            index: index to return

        Returns:
            image (float32, [C, H, W]) and, where the masks are there, mask (long, [H, W]; 255 where
            undefined)
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
        """Return image ``[H, W, C]`` in the file's dtype and mask ``[H, W]``, as arrays.

        Args:
            index: index to return
            with_mask: whether the mask is wanted

        Returns:
            image, and mask with 255 where undefined; None where it is not wanted or not there

        Raises:
            ValueError: If a mask holds a code that is no class.
        """
        files = self.files[index]
        image = _read_msi(files["image"]) if self.product == "msi" else read_tiff(files["image"])
        if not with_mask or "mask" not in files:
            return image, None
        codes = read_tiff(files["mask"])[:, :, 0]
        present = set(np.unique(codes).tolist())
        if not present <= set(self.codes):
            unknown_codes = sorted(present - set(self.codes))
            raise ValueError(f"{files['mask']} holds the codes {unknown_codes}, which are no class")
        table = np.full(256, 255, np.uint8)
        table[list(self.codes)] = list(self.codes.values())
        return image, table[codes]

    def _folders(self, name: str) -> list[Path]:
        """Return the folders of a name at the root or one below, where the zips were unpacked."""
        root = Path(self.root)
        return sorted(p for p in (*root.glob(name), *root.glob(f"*/{name}")) if p.is_dir())


def _read_msi(path: Path) -> NDArray[Any]:
    """Read an 8-band image as GDAL writes it, or as tifffile wrote the original.

    tifffile took ``[H, W, 8]`` for a stack and wrote H pages of W rows and 8 columns, with the
    true shape as JSON in the first page's description. GDAL sees one band, 8 pixels wide.
    """
    image = read_tiff(path)
    if image.shape[1:] != (8, 1):
        return image
    with warnings.catch_warnings(), Image.open(path) as pages:
        warnings.simplefilter("error")  # Pillow only warns where a page's tags are cut off
        description = str(pages.tag_v2.get(_DESCRIPTION_TAG, ""))  # type: ignore[attr-defined]
        try:
            shape = tuple(json.loads(description)["shape"])
        except (ValueError, KeyError, TypeError):
            return image  # one band of eight columns, and nobody says that it is more
        if len(shape) != 3 or shape[1:] != (image.shape[0], 8):
            return image
        full = np.empty(shape, image.dtype)
        for row in range(shape[0]):
            pages.seek(row)  # raises EOFError where the file ends early
            full[row] = np.asarray(pages)
    return full


class US3DOptions(Spec):
    """The options of US3D.

    Attributes:
        cities: Which cities' images: Jacksonville, Omaha or both.
    """

    cities: Annotated[tuple[Literal["JAX", "OMA"], ...], Field(min_length=1)] = ("JAX", "OMA")


class US3DAdapter(ArchiveAdapter):
    """US3D's 8-band images and 5-class masks, read through `US3D`.

    The CoSMAE paper's 21,081 training and 3,072 validation tiles cannot be rebuilt: it does not
    say which images they are from. 3,072 are 192 whole images of 16 tiles, but 21,081 is no
    multiple of 16; the public archive gives 2,783 × 16 = 44,528 tiles.
    """

    name = "us3d"
    folder = "us3d"
    title = "US3D (IEEE Data Fusion Contest 2019, Track 1)"
    sensor = sensors.WORLDVIEW3
    classes = US3D.classes
    splits = US3D.splits
    source = "https://ieee-dataport.org/open-access/data-fusion-contest-2019-dfc2019"
    licence = "free for research with citation; images courtesy of DigitalGlobe, see the source"
    layout = (
        "Track1-MSI-1/*_MSI.tif to Track1-MSI-3/*_MSI.tif and, for labels, Track1-Truth/*_CLS.tif "
        "(the unpacked Train-Track1-MSI-1.zip to -3.zip and Train-Track1-Truth.zip)"
    )
    Options = US3DOptions
    images = 2783

    def _list(self) -> list[Path]:
        try:
            self.dataset = US3D(
                self.root,
                self.split,
                cities=self.options.cities,  # type: ignore[attr-defined]
            )
        except DatasetNotFoundError as error:
            raise self.missing(f"{self.root} has no Track1-MSI*/*_MSI.tif") from error
        self._demand_count(self.dataset.count, self.images, "files *_MSI.tif")
        if self.dataset.has_masks and self.dataset.without_mask:
            path = self.dataset.without_mask[0]
            mask = path.name.replace("_MSI", "_CLS")
            raise self.missing(f"{mask}, the mask of {path}, does not exist")
        return [files["image"] for files in self.dataset.files]

    def inputs(self) -> list[Path]:
        """Return images and those masks that are there."""
        return [path for files in self.dataset.files for path in files.values()]

    def _read(self, index: int, with_labels: bool) -> Scene:
        if with_labels and not self.dataset.has_masks:
            raise self.missing(f"{self.root} has no Track1-Truth/*_CLS.tif, which hold the labels")
        try:
            image, mask = self.dataset.read(index, with_labels)
        except ValueError as error:
            raise ArchiveError(f"{error}; fetch it again from {self.source}.") from error
        return Scene(image, mask=mask)

    @classmethod
    def write_sketch(cls, data_root: Path, rng: np.random.Generator) -> None:
        """Write 6 training and 2 validation images of 1024 × 1024 pixels, RGB and MSI.

        The MSI files are as ``update_msi.py`` makes them, since the original form is not
        compressed.
        """
        codes = {index: code for code, index in US3D.codes.items()}
        table = {
            material: codes[US3D.classes.index(name)] for material, name in _MATERIAL_CLASS.items()
        }
        wanted = {"train": 6, "val": 2}
        with sketch_folder(data_root, cls.folder) as root:
            for number in range(4, 1000):
                location = f"JAX_{number:03d}"
                split = US3D.split_of(location)
                if wanted[split] == 0:
                    continue
                wanted[split] -= 1
                canvas = Canvas(1024, 1024, rng)
                districts(canvas, _SCENES, side=128, size=0.9)
                stem = f"{location}_006"
                options = {"compress": "deflate", "zlevel": 1, "interleave": "pixel"}
                msi = canvas.render(cls.sensor, _LOOK)
                write_tiff(root / "Track1-MSI-1" / f"{stem}_MSI.tif", msi, **options)
                rgb = msi[:, :, cls.sensor.indices(("red", "green", "blue"))]
                rgb = np.minimum(rgb // 5, 255).astype(np.uint8)
                write_tiff(root / "Track1-RGB" / f"{stem}_RGB.tif", rgb, **options)
                mask = canvas.classes(table)[:, :, None]
                # Lidar does not reach everywhere; some pixels of every real mask are unlabeled.
                mask[:16, :16] = 65
                write_tiff(root / "Track1-Truth" / f"{stem}_CLS.tif", mask, **options)
                if not any(wanted.values()):
                    return


_LOOK = Look(gain=0.9, haze=0.09)
_SCENES = ("residential", "residential", "industrial", "parking", "river", "forest", "road", "pond")
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
    "bridge": "elevated-road",
}
