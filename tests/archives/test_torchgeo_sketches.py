"""Sketches of TorchGeo's archives, read by TorchGeo, against the files as rasterio reads them."""

import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from rscl_bench.archives.adapter import UNDEFINED, DatasetAdapter, Scene
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.archives.torchgeo.sketches.pictures import write_mask
from rscl_bench.archives.torchgeo.sketches.registered import WRITERS
from rscl_bench.randomness import numpy_generator
from rscl_bench.testing import check_adapter

OPTIONS: dict[str, dict[str, Any]] = {
    "FieldsOfTheWorld": {"countries": ["austria"]},
    "SSL4EOLBenchmark": {"sensor": "landsat5-tm-8bit", "arguments": {"sensor": "tm_toa"}},
    "SeasoNet": {"seasons": ["Winter"], "grids": [1]},
    "XView2": {"date": 2},
}
#: Values of NLCD in the sketch, by the legend of its publisher.
NLCD = {
    11: "open-water",
    21: "developed-open",
    23: "developed-medium",
    24: "developed-high",
    31: "barren",
    42: "evergreen-forest",
    52: "shrub",
    71: "grassland",
    82: "crops",
}
#: These read Parquet files.
NEEDS = {"FieldsOfTheWorld": "pyarrow"}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("archives")


def opened(root: Path, name: str, split: str, options: dict[str, Any]) -> DatasetAdapter:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    adapter = adapter_class(f"torchgeo:{name}", options)
    if not (root / adapter.folder).is_dir():
        adapter.write_sketch(root, numpy_generator(0, name))
    return adapter(root, split, options)


def raster(path: Path) -> NDArray[Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            pixels: NDArray[Any] = np.moveaxis(file.read(), 0, 2)
    return pixels


def masked(scene: Scene) -> NDArray[np.uint8]:
    assert scene.mask is not None
    return scene.mask


@pytest.mark.slow
# The contract wants labels in every split, and BRIGHT's split "test" has none.
@pytest.mark.parametrize("name", sorted(set(WRITERS) - {"EuroSAT", "BRIGHTDFC2025"}))
def test_contract(name: str, tmp_path: Path) -> None:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    check_adapter(f"torchgeo:{name}", tmp_path, OPTIONS.get(name))


def test_eurosat_has_the_bands_of_the_files(root: Path) -> None:
    archive = opened(root, "EuroSATSpatial", "test", {"bands": ["B8A", "B02"]})
    scene = archive.scene(5, with_labels=True)
    assert scene.labels is not None
    assert archive.classes[int(scene.labels.argmax())] == archive.files[5].parent.name
    # B8A is the last of the 13 channels of a file.
    np.testing.assert_array_equal(scene.image, raster(archive.files[5])[:, :, [12, 1]])
    assert [band.name for band in archive.sensor.bands] == ["nir-narrow", "blue"]


def test_usavars_has_no_classes(root: Path) -> None:
    archive = opened(root, "USAVars", "val", {})
    np.testing.assert_array_equal(archive.scene(2).image, raster(archive.files[2]))
    assert archive.classes == ()


@pytest.mark.parametrize("name", ["tm_toa", "etm_toa", "oli_tirs_toa"])
def test_landsat_masks_are_nlcd_with_its_background_left_out(root: Path, name: str) -> None:
    sensor, channels = {
        "tm_toa": ("landsat5-tm-8bit", list(range(7))),
        "etm_toa": ("landsat7-etm-8bit", [0, 1, 2, 3, 4, 5, 7, 8]),
        "oli_tirs_toa": ("landsat8-oli-8bit", list(range(11))),
    }[name]
    options = {
        "sensor": sensor,
        "arguments": {"sensor": name},
        "channels": [channel + 1 for channel in channels],
    }
    archive = opened(root, "SSL4EOLBenchmark", "val", options)
    path = archive.files[1]
    scene = archive.scene(1, with_labels=True)
    np.testing.assert_array_equal(scene.image, raster(path)[:, :, channels])
    family, year = name.partition("_")[0], 2011 if name == "tm_toa" else 2019
    folder = archive.root / f"ssl4eo_l_{family}_nlcd" / path.parent.parent.name
    nlcd = raster(folder / path.parent.name / f"nlcd_{year}.tif")[:, :, 0]
    for value in np.unique(nlcd):
        (found,) = np.unique(masked(scene)[nlcd == value])
        assert archive.classes[found] == NLCD[int(value)]
    assert len(archive.classes) == 16


def test_landsat_background_is_no_class(root: Path, tmp_path: Path) -> None:
    options = OPTIONS["SSL4EOLBenchmark"]
    opened(root, "SSL4EOLBenchmark", "val", options)
    shutil.copytree(root / "ssl4eolbenchmark", tmp_path / "ssl4eolbenchmark")
    archive = opened(tmp_path, "SSL4EOLBenchmark", "val", options)
    image = archive.files[0]
    place, date = image.parts[-3:-1]
    mask = archive.root / "ssl4eo_l_tm_nlcd" / place / date / "nlcd_2011.tif"
    values = raster(mask)
    values[:20], values[20:] = 0, 11
    mask.unlink()
    write_mask(mask, values[:, :, 0])
    read = masked(opened(tmp_path, "SSL4EOLBenchmark", "val", options).scene(0, with_labels=True))
    assert set(read[:20].ravel()) == {UNDEFINED}
    assert set(read[20:].ravel()) == {archive.classes.index("open-water")}


def test_seasonet_has_the_patches_of_a_season_and_a_grid(root: Path) -> None:
    options = OPTIONS["SeasoNet"]
    archive = opened(root, "SeasoNet", "train", options)
    assert {path.parts[-4:-2] for path in archive.files} == {("winter", "grid1")}
    path = archive.files[3]
    scene = archive.scene(3, with_labels=True)
    infrared = raster(Path(str(path).replace("10m_RGB", "10m_IR")))
    np.testing.assert_array_equal(scene.image, np.concatenate([raster(path), infrared], axis=2))
    labels = raster(Path(str(path).replace("10m_RGB", "labels")))[:, :, 0]
    np.testing.assert_array_equal(masked(scene), labels - 1)


def test_xview2_counts_an_undamaged_building_as_background(root: Path) -> None:
    archive = opened(root, "XView2", "train", {"date": 2, "only": ["*/palu-tsunami_*"]})
    assert len(archive) == 6
    for index, first in enumerate(archive.files):
        name = first.name.removesuffix("_pre_disaster.png")
        targets = first.parent.parent / "targets"
        after = np.array(Image.open(targets / f"{name}_post_disaster_target.png"))
        scene = archive.scene(index, with_labels=True)
        expected = np.where(after > 1, after - 1, 0)
        np.testing.assert_array_equal(masked(scene), expected)
        image = np.array(Image.open(first.parent / f"{name}_post_disaster.png"))
        np.testing.assert_array_equal(scene.image, image)
    assert archive.classes == ("undamaged", "minor-damage", "major-damage", "destroyed")


def test_bright_has_one_band_of_radar(root: Path) -> None:
    radar = {"date": 2, "channels": [1], "sensor": "sar-amplitude8"}
    archive = opened(root, "BRIGHTDFC2025", "val", radar)
    first = archive.files[4]
    name = first.name.removesuffix("_pre_disaster.tif")
    scene = archive.scene(4, with_labels=True)
    post = first.parent.parent / "post-event" / f"{name}_post_disaster.tif"
    target = first.parent.parent / "target" / f"{name}_building_damage.tif"
    np.testing.assert_array_equal(scene.image, raster(post))
    np.testing.assert_array_equal(masked(scene), raster(target)[:, :, 0])
    optical = opened(root, "BRIGHTDFC2025", "val", {"date": 1}).scene(4)
    np.testing.assert_array_equal(optical.image, raster(first))


def test_fields_have_window_b_first_and_unlabelled_pixels_are_undefined(root: Path) -> None:
    archive = opened(root, "FieldsOfTheWorld", "test", {"countries": ["brazil"]})
    path = archive.files[0]
    window_b = path.parent.parent / "window_b" / path.name
    scene = archive.scene(0, with_labels=True)
    np.testing.assert_array_equal(scene.image, raster(window_b))
    assert archive.classes == ("background", "field", "field-boundary")
    assert UNDEFINED in masked(scene)
    assert 0 not in masked(scene)
