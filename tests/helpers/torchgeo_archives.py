"""Small archives in the layouts that classes of TorchGeo read, written with random pixels.

Each function writes one archive into an empty folder and returns what a reader must find, taken
from the arrays that were written and not from TorchGeo.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio import Affine

from rscl_bench.archives.files import write_tiff

Pixels = NDArray[Any]


@dataclass
class Written:
    """The archive of one split, item by item in any order.

    Attributes:
        folder: Folder below the data root.
        images: Pixels ``[H, W, C]`` of each item by the file of its image, relative to the folder.
        labels: Indices of the classes of each item, by the same file.
        masks: Values of the mask of each item ``[H, W]`` as stored, by the same file.
        files: Every file that the split is read from, relative to the folder.
    """

    folder: str
    images: dict[str, Pixels] = field(default_factory=dict)
    labels: dict[str, set[int]] = field(default_factory=dict)
    masks: dict[str, Pixels] = field(default_factory=dict)
    files: set[str] = field(default_factory=set)


def _noise(rng: np.random.Generator, side: int, bands: int, dtype: str = "uint8") -> Pixels:
    top = 256 if dtype == "uint8" else 4000
    return rng.integers(0, top, (side, side, bands)).astype(dtype)


def _write_png(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def eurosat(root: Path, per_class: int = 2, side: int = 64) -> Written:
    """Write the split ``train`` of EuroSAT: 13 bands in TIFFs, one folder for each class."""
    rng, written = np.random.default_rng(0), Written("eurosat")
    names = []
    tif = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    classes = (
        "AnnualCrop",
        "Forest",
        "HerbaceousVegetation",
        "Highway",
        "Industrial",
        "Pasture",
        "PermanentCrop",
        "Residential",
        "River",
        "SeaLake",
    )
    for index, name in enumerate(classes):
        for number in range(1, per_class + 1):
            file = f"{tif}/{name}/{name}_{number}.tif"
            written.images[file] = _noise(rng, side, 13, "uint16")
            written.labels[file] = {index}
            write_tiff(root / "eurosat" / file, written.images[file])
            names.append(f"{name}_{number}.jpg")
    listed = "\n".join(names) + "\n"
    for split in ("train", "val", "test"):
        (root / "eurosat" / f"eurosat-{split}.txt").write_text(listed, encoding="utf-8")
    written.files = {*written.images, "eurosat-train.txt"}
    return written


def treesatai(root: Path, count: int = 6) -> Written:
    """Write the split ``train`` of TreeSatAI: aerial TIFFs of 4 bands, multi-labels in a JSON."""
    rng, written = np.random.default_rng(1), Written("treesatai")
    genera = ("Abies", "Acer", "Alnus", "Betula", "Cleared", "Fagus")
    folder, labels = root / "treesatai", {}
    for number in range(count):
        name = f"{genera[number]}_spec_{number}_100_WEFL_NLF.tif"
        file = f"aerial/60m/{name}"
        written.images[file] = _noise(rng, 64, 4)
        written.labels[file] = {number, (number + 2) % len(genera)}
        write_tiff(folder / file, written.images[file])
        labels[name] = [[genera[index], 0.5] for index in sorted(written.labels[file])]
    (folder / "labels").mkdir()
    table = "labels/TreeSatBA_v9_60m_multi_labels.json"
    (folder / table).write_text(json.dumps(labels), encoding="utf-8")
    (folder / "train_filenames.lst").write_text("\n".join(labels), encoding="utf-8")
    written.files = {*written.images, table, "train_filenames.lst"}
    return written


def loveda(root: Path, split: str = "Train") -> Written:
    """Write a split of LoveDA: PNGs, and masks in which 0 is no class."""
    rng, written = np.random.default_rng(2), Written("loveda")
    for scene in ("Urban", "Rural"):
        for number in (1, 2):
            file = f"{split}/{scene}/images_png/{number}.png"
            mask = f"{split}/{scene}/masks_png/{number}.png"
            written.images[file] = _noise(rng, 64, 3)
            written.masks[file] = rng.integers(0, 8, (64, 64)).astype(np.uint8)
            _write_png(root / "loveda" / file, written.images[file])
            _write_png(root / "loveda" / mask, written.masks[file])
            written.files |= {file, mask}
    return written


def levircdplus(root: Path, date: int) -> Written:
    """Write the split ``train`` of LEVIR-CD+: pairs of PNGs, and masks of change (0 and 255)."""
    rng, written = np.random.default_rng(3), Written("levircdplus")
    base = "LEVIR-CD+/train"
    for number in (1, 2, 3):
        before, after = _noise(rng, 64, 3), _noise(rng, 64, 3)
        change = rng.integers(0, 2, (64, 64)).astype(np.uint8) * np.uint8(255)
        names = [f"{base}/{part}/{number}.png" for part in ("A", "B", "label")]
        for name, pixels in zip(names, (before, after, change), strict=True):
            _write_png(root / "levircdplus" / name, pixels)
        # The first file of a pair stands for the item.
        written.images[names[0]] = (before, after)[date - 1]
        written.masks[names[0]] = change // 255
        written.files |= set(names)
    (root / "levircdplus/LEVIR-CD+/test").mkdir()
    return written


def dota(root: Path) -> Written:
    """Write the split ``train`` of DOTA: PNGs, and boxes in texts; one image has no object."""
    rng, written = np.random.default_rng(4), Written("dota")
    objects: dict[str, list[tuple[int, int, str]]] = {
        "P0000": [(4, 4, "plane"), (40, 40, "ship")],
        "P0001": [],
        "P0002": [(40, 8, "harbor")],
    }
    classes = {"plane": 0, "ship": 1, "harbor": 7}
    rows = ["image_path,annotation_path,split,version"]
    for name, found in objects.items():
        file, text = f"train/images/{name}.png", f"train/annotations/version1.0/{name}.txt"
        written.images[file] = _noise(rng, 64, 3)
        written.labels[file] = {classes[one] for _, _, one in found}
        _write_png(root / "dota" / file, written.images[file])
        lines = ["imagesource:made", "gsd:1.0"]
        for x, y, one in found:  # the corners of a box of 8 pixels
            corners = (x, y, x + 8, y, x + 8, y + 8, x, y + 8)
            lines.append(f"{' '.join(map(str, corners))} {one} 0")
        path = root / "dota" / text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        rows.append(f"{file},{text},train,1.0")
        written.files |= {file, text}
    (root / "dota" / "samples.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    written.files.add("samples.csv")
    return written


def resisc45(root: Path, left_out: tuple[str, ...] = ()) -> Written:
    """Write the split ``train`` of RESISC45 with five classes: JPEGs, one folder for each."""
    rng, written = np.random.default_rng(5), Written("resisc45")
    names = []
    classes = {"airplane": 0, "beach": 4, "forest": 13, "lake": 21, "wetland": 44}
    for name in classes.keys() - set(left_out):
        file = f"NWPU-RESISC45/{name}/{name}_001.jpg"
        path = root / "resisc45" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_noise(rng, 64, 3)).save(path, quality=95)
        written.images[file] = np.asarray(Image.open(path))
        written.labels[file] = {classes[name]}
        names.append(path.name)
    listed = "\n".join(sorted(names)) + "\n"
    for split in ("train", "val", "test"):
        (root / "resisc45" / f"resisc45-{split}.txt").write_text(listed, encoding="utf-8")
    written.files = {*written.images, "resisc45-train.txt"}
    return written


@dataclass
class Rasters:
    """Rasters on one grid of 30 m, in EPSG:32632.

    Attributes:
        images: Pixels ``[H, W, C]`` by file, relative to the folder.
        corners: Easting and northing of each raster's upper left corner, in metres.
    """

    images: dict[str, Pixels] = field(default_factory=dict)
    corners: dict[str, tuple[float, float]] = field(default_factory=dict)


def write_raster(path: Path, pixels: Pixels, corner: tuple[float, float], **options: Any) -> None:
    """Write pixels ``[H, W, C]`` with coordinates; ``options`` are those of GDAL's driver."""
    path.parent.mkdir(parents=True, exist_ok=True)
    place = {
        "crs": "EPSG:32632",
        "transform": Affine(30, 0, corner[0], 0, -30, corner[1]),
        **options,
    }
    height, width, count = pixels.shape
    profile = {"height": height, "width": width, "count": count, "dtype": pixels.dtype}
    with rasterio.open(path, "w", driver="GTiff", **profile, **place) as file:
        file.write(np.moveaxis(pixels, 2, 0))


def naip(root: Path) -> Rasters:
    """Write two rasters of NAIP side by side: 4 bands, the last of them tagged as alpha."""
    rng, rasters = np.random.default_rng(6), Rasters()
    for number, corner in enumerate([(400_000.0, 5_000_000.0), (402_100.0, 5_000_000.0)]):
        file = f"m_380751{number}_ne_18_060_20190605.tif"
        pixels = _noise(rng, 70, 4)
        pixels[:5, :5, 3] = 0  # dark in the infrared, as water is
        rasters.images[file], rasters.corners[file] = pixels, corner
        write_raster(root / "naip" / file, pixels, corner, photometric="rgb", alpha="yes")
    return rasters


def landsat8(root: Path, nodata: int | None = None, side: int = 64) -> Rasters:
    """Write one product of Landsat 8: a file for each of 7 bands."""
    rng, rasters = np.random.default_rng(7), Rasters()
    product = "LC08_L2SP_023032_20210622_20210629_02_T1"
    pixels, corner = _noise(rng, side, 7, "uint16"), (400_000.0, 5_000_000.0)
    rasters.images[product], rasters.corners[product] = pixels, corner
    options = {} if nodata is None else {"nodata": nodata}
    for band in range(7):
        file = f"{product}_SR_B{band + 1}.TIF"
        write_raster(root / "landsat8" / file, pixels[:, :, band : band + 1], corner, **options)
    return rasters


def cdl(folder: Path, corner: tuple[float, float], side: int) -> Pixels:
    """Write a raster of the Cropland Data Layer with the values 1 and 5; return ``[H, W]``."""
    rng = np.random.default_rng(8)
    mask = rng.choice([1, 5], (side, side, 1)).astype(np.uint8)
    write_raster(folder / "2021_30m_cdls.tif", mask, corner)
    return mask[:, :, 0]


def patternnet(root: Path, per_class: int = 10) -> Written:
    """Write PatternNet, which has no splits, with two classes: JPEGs, one folder for each."""
    rng, written = np.random.default_rng(9), Written("patternnet")
    for name, index in (("airplane", 0), ("river", 27)):
        for number in range(per_class):
            file = f"PatternNet/images/{name}/{name}{number:03d}.jpg"
            path = root / "patternnet" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(_noise(rng, 32, 3)).save(path, quality=95)
            written.images[file] = np.asarray(Image.open(path))
            written.labels[file] = {index}
    written.files = set(written.images)
    return written
