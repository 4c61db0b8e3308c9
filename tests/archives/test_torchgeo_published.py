"""Datasets of TorchGeo on files that its own project made, and on single real files.

Both lie beside the archives of ``RSCL_DATA_ROOT``, and are no part of this repository. Pixels are
compared with those that rasterio and Pillow read from the files themselves.
"""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image

from rscl_bench.archives.adapter import UNDEFINED, DatasetAdapter
from rscl_bench.archives.lookup import adapter_class

Pixels = NDArray[Any]
#: Options, split, reader of the image beside the file of an item.
Case = tuple[str, dict[str, Any], str, Callable[[Path], Pixels]]


def folder(name: str) -> Path:
    root = os.environ.get("RSCL_DATA_ROOT")
    if not root:
        pytest.skip(f"RSCL_DATA_ROOT is not set: no files of {name} to read")
    path = Path(root) / name
    if not path.is_dir():
        pytest.skip(f"RSCL_DATA_ROOT has no folder {name}")
    return path


def opened(root: Path, name: str, options: dict[str, Any], split: str) -> DatasetAdapter:
    for package in {"So2Sat": ["h5py"], "VHR10": ["pycocotools"]}.get(name, []):
        pytest.importorskip(package, reason=f"{name} needs {package}, which is not installed")
    return adapter_class(f"torchgeo:{name}", options)(root, split, options)


def tiff(path: Path) -> Pixels:
    with rasterio.open(path) as file:
        pixels: Pixels = np.moveaxis(file.read(), 0, 2)
    return pixels


def picture(path: Path) -> Pixels:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def later(path: Path) -> Pixels:
    """Read the second image of a pair; that of the first date stands for the item."""
    return picture(path.parent.parent / "B" / path.name)


CASES: list[Case] = [
    ("DFC2022", {"ignore": [0, *range(15, 256)]}, "train", tiff),  # its masks are noise
    ("DOTA", {"version": "1.0"}, "train", picture),
    ("DeepGlobeLandCover", {}, "train", picture),
    ("EuroSAT", {}, "train", tiff),
    ("EuroSATSpatial", {}, "test", tiff),
    ("InriaAerialImageLabeling", {}, "train", tiff),
    ("LEVIRCD", {"folder": "levircd/levircd", "date": 1}, "train", picture),
    ("LEVIRCDPlus", {"folder": "levircd/levircdplus", "date": 2}, "test", later),
    ("LandCoverAI", {}, "val", picture),
    ("LoveDA", {}, "val", picture),
    ("Potsdam2D", {}, "train", tiff),
    ("TreeSatAI", {}, "test", tiff),
    ("VHR10", {}, "positive", picture),
    ("Vaihingen2D", {}, "train", tiff),
]


@pytest.mark.parametrize(("name", "options", "split", "read"), CASES)
def test_made_up_files_are_read_value_by_value(
    name: str, options: dict[str, Any], split: str, read: Callable[[Path], Pixels]
) -> None:
    root = folder("torchgeo_fake")
    adapter = opened(root, name, options, split)
    assert len(adapter) > 0
    files = {path.name for path in adapter.inputs()}
    for index, path in enumerate(adapter.files):
        assert path.name in files
        scene = adapter.scene(index, with_labels=True)
        bands = len(adapter.sensor.bands)
        assert np.array_equal(scene.image, read(path)[:, :, :bands])
        assert scene.mask is not None or scene.labels is not None or scene.objects is not None
    assert not any(str(path).endswith((".zip", ".gz")) for path in adapter.inputs())


def test_made_up_so2sat() -> None:
    """One file holds all items, as floating-point reflectances."""
    root = folder("torchgeo_fake")
    adapter = opened(root, "So2Sat", {}, "train")
    h5py = pytest.importorskip("h5py")
    with h5py.File(root / "so2sat" / "training.h5") as file:
        reflectance, labels = np.asarray(file["sen2"]), np.asarray(file["label"])
    assert len(adapter) == len(labels)
    for index in range(len(adapter)):
        scene = adapter.scene(index, with_labels=True)
        assert np.array_equal(scene.image, np.rint(reflectance[index].astype("f4") * 10_000.0))
        assert scene.labels is not None
        assert scene.labels.argmax() == labels[index].argmax()


def test_masks_of_made_up_files() -> None:
    root = folder("torchgeo_fake")
    adapter = opened(root, "LoveDA", {}, "train")
    for index, path in enumerate(adapter.files):
        stored = np.asarray(Image.open(path.parent.parent / "masks_png" / path.name))
        found = adapter.scene(index, with_labels=True).mask
        assert found is not None
        assert np.array_equal(found, np.where(stored == 0, UNDEFINED, stored.astype(int) - 1))


# Single real files, put into the layouts that the classes read.


def copied(source: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(source, target)
    return target


def test_real_eurosat(tmp_path: Path) -> None:
    files = sorted((folder("reader_samples") / "eurosat" / "EuroSAT_MS").glob("*/*.tif"))
    base = tmp_path / "eurosat"
    tif = base / "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"
    for path in files:
        copied(path, tif / path.parent.name / path.name)
    for split in ("train", "val", "test"):
        listed = "\n".join(f"{path.stem}.jpg" for path in files)
        (base / f"eurosat-{split}.txt").write_text(listed, encoding="utf-8")
    adapter = opened(tmp_path, "EuroSAT", {}, "train")
    assert len(adapter) == len(files) == 3
    for index, path in enumerate(adapter.files):
        scene = adapter.scene(index, with_labels=True)
        assert np.array_equal(scene.image, tiff(path))
        assert scene.labels is not None
        # Three folders of ten: TorchGeo numbers them 0 to 2.
        assert adapter.classes[int(scene.labels.argmax())] == path.parent.name


def test_real_treesatai(tmp_path: Path) -> None:
    (path,) = (folder("reader_samples") / "treesatai" / "aerial").rglob("*.tif")
    base = tmp_path / "treesatai"
    copied(path, base / "aerial" / "60m" / path.name)
    (base / "labels").mkdir()
    labels = json.dumps({path.name: [["Abies", 0.9], ["Picea", 0.1]]})
    (base / "labels" / "TreeSatBA_v9_60m_multi_labels.json").write_text(labels, encoding="utf-8")
    (base / "train_filenames.lst").write_text(path.name, encoding="utf-8")
    adapter = opened(tmp_path, "TreeSatAI", {}, "train")
    scene = adapter.scene(0, with_labels=True)
    assert np.array_equal(scene.image, tiff(path))
    assert scene.labels is not None
    assert [adapter.classes[i] for i in np.flatnonzero(scene.labels)] == ["Abies", "Picea"]


def test_real_loveda(tmp_path: Path) -> None:
    samples = folder("reader_samples") / "loveda"
    for scene in ("Urban", "Rural"):
        train = tmp_path / "loveda" / "Train" / scene
        copied(samples / "img_dir" / "0.png", train / "images_png" / "0.png")
        copied(samples / "ann_dir" / "0.png", train / "masks_png" / "0.png")
    stored = np.asarray(Image.open(samples / "ann_dir" / "0.png"))
    adapter = opened(tmp_path, "LoveDA", {"ignore": [0, 255]}, "train")
    found = adapter.scene(0, with_labels=True)
    assert np.array_equal(found.image, picture(samples / "img_dir" / "0.png"))
    none = np.isin(stored, (0, 255))
    assert found.mask is not None
    assert np.array_equal(found.mask, np.where(none, UNDEFINED, stored.astype(int) - 1))


@pytest.mark.parametrize("place", ["treesatai/aerial", "ssl4eo_s12/s2a", "bigearthnet_v2"])
def test_real_rasters_by_their_coordinates(place: str, tmp_path: Path) -> None:
    """Any folder of GeoTIFFs is a dataset: TorchGeo's RasterDataset."""
    path = sorted((folder("reader_samples") / place).rglob("*.tif"))[0]
    copied(path, tmp_path / "rasterdataset" / path.name)
    with rasterio.open(path) as file:
        pixels, count, dtype = tiff(path), file.count, file.dtypes[0]
        assert file.crs is not None
    side = min(pixels.shape[:2])
    converted = "float" in dtype
    options: dict[str, Any] = {
        "window": side,
        "sensor": {
            "bands": [{"name": f"band-{n}", "wavelength_nm": 500.0 + n} for n in range(count)],
            "dtype": "uint8" if dtype == "uint8" else "uint16",
            "unit": "number",
            "scale": 255.0,
        },
    }
    if converted:
        options["convert"] = {"multiply": 100.0, "add": 10_000.0}
    adapter = opened(tmp_path, "RasterDataset", options, "all")
    expected = np.rint(pixels.astype("f8") * 100 + 10_000) if converted else pixels
    scene = adapter.scene(0)
    kept = ~scene.missing if scene.missing is not None else np.ones_like(scene.image, bool)
    assert np.array_equal(scene.image[kept], expected[:side, :side][kept])
