"""TorchGeo's rasters with coordinates, read as windows of its grid sampler."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import torchgeo_archives as archives
from helpers.torchgeo_archives import Rasters, write_raster

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.archives.torchgeo.grid_adapter import TorchGeoGridAdapter
from rscl_bench.errors import ArchiveError, SpecError
from rscl_bench.spec import Source
from rscl_bench.tiles.packing import open_or_pack

CORNER = (400_000.0, 5_000_000.0)


def opened(name: str, root: Path, split: str = "all", **options: Any) -> DatasetAdapter:
    return adapter_class(f"torchgeo:{name}", options)(root, split, options)


def place(rasters: Rasters, file: str, window: Any) -> tuple[slice, slice]:
    """Return the rows and columns of a window in its raster."""
    x, y, _ = window.query
    left, top = rasters.corners[file]
    column, row = round((x.start - left) / 30), round((top - y.stop) / 30)
    side = round((x.stop - x.start) / 30)
    return slice(row, row + side), slice(column, column + side)


def test_windows_hold_the_pixels_of_the_files(tmp_path: Path) -> None:
    """Also where the infrared is 0: GDAL takes that band for a mask of the others."""
    rasters = archives.naip(tmp_path)
    adapter = opened("NAIP", tmp_path, window=32)
    assert isinstance(adapter, TorchGeoGridAdapter)
    seen: dict[str, np.ndarray] = {f: np.zeros((70, 70), int) for f in rasters.images}
    for index, path in enumerate(adapter.files):
        rows, columns = place(rasters, path.name, adapter._windows[index])
        image = adapter.scene(index).image
        assert np.array_equal(image, rasters.images[path.name][rows, columns])
        seen[path.name][rows, columns] += 1
    # Two windows of 32 in each direction; the remaining 6 rows and columns are left out.
    assert len(adapter) == 8
    assert all((counts <= 1).all() and counts.sum() == 64**2 for counts in seen.values())


def test_bands_in_files_of_their_own(tmp_path: Path) -> None:
    rasters = archives.landsat8(tmp_path)
    adapter = opened("Landsat8", tmp_path, window=32, sensor="landsat8-oli")
    (pixels,) = rasters.images.values()
    (product,) = rasters.images
    assert len(adapter) == 4
    assert len(adapter.inputs()) == 7
    for index in range(4):
        assert isinstance(adapter, TorchGeoGridAdapter)
        rows, columns = place(rasters, product, adapter._windows[index])
        assert np.array_equal(adapter.scene(index).image, pixels[rows, columns])


def test_some_bands_in_another_order(tmp_path: Path) -> None:
    rasters = archives.landsat8(tmp_path)
    bands = ["SR_B4", "SR_B3", "SR_B2"]
    adapter = opened("Landsat8", tmp_path, sensor="landsat8-oli", bands=bands, window=64)
    assert [band.name for band in adapter.sensor.bands] == ["red", "green", "blue"]
    (pixels,) = rasters.images.values()
    assert np.array_equal(adapter.scene(0).image, pixels[:, :, [3, 2, 1]])


def test_nodata_of_the_file_is_missing(tmp_path: Path) -> None:
    rasters = archives.landsat8(tmp_path, nodata=0)
    (pixels,) = rasters.images.values()
    scene = opened("Landsat8", tmp_path, window=64, sensor="landsat8-oli").scene(0)
    assert scene.missing is not None
    assert np.array_equal(scene.missing, pixels == 0)


LABELS: dict[str, Any] = {
    "window": 32,
    "sensor": "landsat8-oli",
    "labels_from": {
        "dataset": "CDL",
        "folder": "cdl",
        "arguments": {"years": [2021], "classes": [0, 1, 5]},
    },
    "class_names": ["other", "corn", "soybeans"],
    "ignore": [0],
}


def test_labels_of_a_second_dataset(tmp_path: Path) -> None:
    rasters = archives.landsat8(tmp_path)
    mask = archives.cdl(tmp_path / "landsat8" / "cdl", CORNER, 64)
    adapter = opened("Landsat8", tmp_path, **LABELS)
    (product,) = rasters.images
    assert isinstance(adapter, TorchGeoGridAdapter)
    assert adapter.classes == ("corn", "soybeans")
    assert {path.parent.name for path in adapter.inputs()} == {"cdl", "landsat8"}
    assert len(adapter) == 4
    for index in range(4):
        rows, columns = place(rasters, product, adapter._windows[index])
        found = adapter.scene(index, with_labels=True).mask
        assert found is not None
        assert np.array_equal(found, np.where(mask[rows, columns] == 1, 0, 1))


def test_windows_without_masks_are_left_out(tmp_path: Path) -> None:
    archives.landsat8(tmp_path)
    archives.cdl(tmp_path / "landsat8" / "cdl", CORNER, 32)
    assert len(opened("Landsat8", tmp_path, **LABELS)) == 1


def test_windows_are_packed_into_the_tile_store(tmp_path: Path) -> None:
    rasters = archives.naip(tmp_path)
    source = Source(
        dataset="torchgeo:NAIP",
        split="all",
        bands=("red", "green", "blue"),
        tile_size=32,
        options={"window": 64},
    )
    store = open_or_pack(tmp_path, source, tmp_path / "cache")
    assert store.tiles.shape == (8, 32, 32, 3)
    expected = sorted(
        pixels[row : row + 32, column : column + 32, :3].tobytes()
        for pixels in rasters.images.values()
        for row in (6, 38)  # TorchGeo's grid begins at the lower left
        for column in (0, 32)
    )
    assert sorted(tile.tobytes() for tile in store.tiles) == expected
    again = open_or_pack(tmp_path, source, tmp_path / "other-cache")
    assert again.source_digest == store.source_digest


def test_rasters_of_two_grids_are_refused(tmp_path: Path) -> None:
    archives.naip(tmp_path)
    pixels = np.zeros((70, 70, 4), np.uint8)
    other = tmp_path / "naip" / "m_3807519_ne_18_060_20190605.tif"
    write_raster(other, pixels, CORNER, crs="EPSG:32633")
    with pytest.raises(ArchiveError, match=r"has the grid EPSG:32633 .*; put each grid into"):
        opened("NAIP", tmp_path, window=32)


def test_a_window_that_fits_nowhere_is_told(tmp_path: Path) -> None:
    archives.naip(tmp_path)
    with pytest.raises(ArchiveError, match="no window of 256 pixels fits into its 2 rasters"):
        opened("NAIP", tmp_path)


@pytest.mark.parametrize("name", ["OpenBuildings", "EDDMapS", "XarrayDataset"])
def test_a_dataset_without_rasters_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=f"TorchGeo's {name} has no images"):
        adapter_class(f"torchgeo:{name}", {})


def test_a_raster_that_changes_gives_another_digest(tmp_path: Path) -> None:
    rasters = archives.naip(tmp_path)
    source = Source(dataset="torchgeo:NAIP", split="all", tile_size=32, options={"window": 32})
    first = open_or_pack(tmp_path, source, tmp_path / "cache").source_digest
    file = min(rasters.images)
    pixels = rasters.images[file].copy()
    pixels[40, 40] += 1
    write_raster(
        tmp_path / "naip" / file, pixels, rasters.corners[file], photometric="rgb", alpha="yes"
    )
    assert open_or_pack(tmp_path, source, tmp_path / "cache").source_digest != first


@pytest.mark.parametrize(("block", "groups"), [({}, 2), ({"block": 30}, 18)])
def test_rasters_or_their_blocks_are_dealt_to_splits(
    block: dict[str, int], groups: int, tmp_path: Path
) -> None:
    """Windows of 10 pixels, in blocks of 30: each raster has 49 windows in 9 blocks."""
    archives.naip(tmp_path)
    rule = {"shares": {"train": 0.5, "test": 0.5}, "key": "a", **block}
    found: list[set[str]] = []
    windows = 0
    for split in ("train", "test"):
        part = opened("NAIP", tmp_path, split, window=10, splits=rule)
        assert isinstance(part, TorchGeoGridAdapter)
        found.append({part._group_of(part._windows[i]) for i in part._kept})
        windows += len(part)
    assert windows == 2 * 49
    assert len(found[0]) + len(found[1]) == groups
    assert not found[0] & found[1]
