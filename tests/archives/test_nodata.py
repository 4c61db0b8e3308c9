"""Pixels that a file declares as missing, and blocks that a file lacks."""

import warnings
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning

from rscl_bench import registry
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.files import Nodata, read_tiff
from rscl_bench.errors import ArchiveError
from rscl_bench.sensors import Band, Sensor
from rscl_bench.spec import Source
from rscl_bench.tiles.packing import open_or_pack
from rscl_bench.tiles.store import TileStore

SIDE = 32


class Counts(DatasetAdapter):
    """TIFFs of two bands of counts."""

    name = "counts"
    folder = "counts"
    title = "Counts"
    sensor = Sensor("two", (Band("a", 500.0), Band("b", 600.0)), "count", "uint16", 4095.0, None)
    splits = ("train",)
    source = "the generator of this test"
    licence = "MIT"
    layout = "NUMBER.tif"

    def _list_files(self) -> list[Path]:
        return sorted(self.root.glob("*.tif"))

    def _read(self, index: int, with_labels: bool) -> Scene:
        return Scene(self.read_image(self.files[index]))


class Keeps(Counts):
    name = "keeps"
    nodata: ClassVar[Nodata] = "keep"


class Refuses(Counts):
    name = "refuses"
    nodata: ClassVar[Nodata] = "refuse"


def counts(side: int = SIDE) -> NDArray[np.uint16]:
    return np.random.default_rng(0).integers(500, 1500, (side, side, 2), np.uint16)


def write(path: Path, pixels: NDArray[Any], mask: NDArray[Any] | None = None, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = pixels.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": bands}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with (
            rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
            rasterio.open(path, "w", dtype=pixels.dtype, **profile, **more) as file,
        ):
            file.write(np.moveaxis(pixels, 2, 0))
            if mask is not None:
                file.write_mask(mask)


def packed(root: Path, adapter: type[DatasetAdapter] = Counts, **more: Any) -> TileStore:
    with registry.registered("datasets", adapter) as name:
        source = Source(
            dataset=name, split="train", bands=("b", "a"), **{"tile_size": SIDE // 2, **more}
        )
        return open_or_pack(root, source, root / "cache")


def holed() -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Return counts and where they are missing: a corner in both bands, more in band b."""
    missing = np.zeros((SIDE, SIDE, 2), np.bool_)
    missing[:20, :9] = True
    missing[3, :, 1] = True
    return np.where(missing, np.uint16(65535), counts()), missing


def test_a_nodata_value_is_filled_and_left_out_of_the_statistics(tmp_path: Path) -> None:
    pixels, missing = holed()
    write(tmp_path / "counts" / "0.tif", pixels, nodata=65535)
    write(tmp_path / "counts" / "1.tif", counts())
    store = packed(tmp_path)
    measured = [
        np.concatenate([pixels[..., band][~missing[..., band]], counts()[..., band].ravel()])
        for band in (1, 0)  # in the order of the source
    ]
    assert np.allclose(store.mean, [values.mean() for values in measured])
    assert np.allclose(store.std, [values.std() for values in measured])
    assert store.missing == tuple(int(missing[..., band].sum()) for band in (1, 0))
    assert store.missing_share == missing[..., 1].sum() / (2 * SIDE * SIDE)
    corner = pixels[..., 1][~missing[..., 1]].mean()
    assert (store.tiles[0, :9, :9, 0] == np.rint(corner)).all()
    assert np.array_equal(store.tiles[3, 4:, :, 1], pixels[20:, 16:, 0])


def test_a_mask_within_the_file_declares_missing_pixels(tmp_path: Path) -> None:
    mask = np.full((SIDE, SIDE), 255, np.uint8)
    mask[:, :5] = 0
    write(tmp_path / "counts" / "0.tif", counts(), mask)
    store = packed(tmp_path)
    assert store.missing == (5 * SIDE, 5 * SIDE)
    assert np.allclose(store.mean, counts()[:, 5:].mean(axis=(0, 1))[::-1])


def test_a_resized_image_counts_its_share_of_missing_pixels(tmp_path: Path) -> None:
    pixels = counts()
    pixels[: SIDE // 4] = 65535
    write(tmp_path / "counts" / "0.tif", pixels, nodata=65535)
    store = packed(tmp_path, cut="whole")
    assert store.missing_share == 0.25
    assert store.tiles.max() < 1500


def test_without_missing_pixels_the_declared_value_changes_nothing(tmp_path: Path) -> None:
    for name, value in (("with", 65535), ("without", None)):
        write(tmp_path / name / "counts" / "0.tif", counts(), nodata=value)
    one, other = (packed(tmp_path / name) for name in ("with", "without"))
    assert (one.digest, one.mean.tolist()) == (other.digest, other.mean.tolist())
    assert one.missing_share == 0


def test_an_adapter_may_keep_or_refuse_missing_pixels(tmp_path: Path) -> None:
    pixels, missing = holed()
    write(tmp_path / "counts" / "0.tif", pixels, nodata=65535)
    store = packed(tmp_path, Keeps)
    assert store.tiles.max() == 65535
    assert store.missing_share == 0
    count = missing.any(axis=2).sum()
    with pytest.raises(ArchiveError, match=f"0.tif declares {count} of its 1,024 pixels") as error:
        packed(tmp_path, Refuses)
    assert "--on-bad-tile skip" in str(error.value)
    with pytest.raises(ArchiveError, match="as missing"):
        read_tiff(tmp_path / "counts" / "0.tif")


def test_an_alpha_band_declares_nothing(tmp_path: Path) -> None:
    """Real tiles of TreeSatAI, and of NAIP, carry the tag on their infrared band."""
    pixels = np.random.default_rng(0).integers(0, 3, (SIDE, SIDE, 4), np.uint8)
    path = tmp_path / "alpha.tif"
    write(path, pixels, photometric="RGB", alpha="YES")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            assert file.colorinterp[3] == ColorInterp.alpha
    assert np.array_equal(read_tiff(path), pixels)


@pytest.mark.parametrize("more", [{}, {"interleave": "band"}, {"interleave": "pixel"}])
def test_absent_blocks_are_refused_unless_nodata_stands_for_them(
    tmp_path: Path, more: dict[str, str]
) -> None:
    path = tmp_path / "counts" / "0.tif"
    tiled: dict[str, Any] = {
        "tiled": True,
        "blockxsize": 16,
        "blockysize": 16,
        "sparse_ok": True,
        **more,
    }
    pixels = counts()
    pixels[:16, 16:, 1 if more.get("interleave") == "band" else slice(None)] = 0
    write(path, pixels, **tiled)
    for adapter in (Counts, Keeps):
        with pytest.raises(ArchiveError, match=r"0\.tif lacks some of its blocks"):
            packed(tmp_path, adapter)
    write(path, pixels, nodata=0, **tiled)
    assert packed(tmp_path).missing == tuple(int((pixels[..., b] == 0).sum()) for b in (1, 0))
    with pytest.raises(ArchiveError, match="lacks some of its blocks"):
        packed(tmp_path, Keeps)
    write(path, pixels, **{**tiled, "sparse_ok": False})
    assert packed(tmp_path).tiles.min() == 0
