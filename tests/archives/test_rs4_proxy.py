"""The stand-ins for the archives of rs4: places, counts and masks."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from helpers.images import rewrite

from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.rs4_proxy import AerialTownAdapter, SatelliteCityAdapter
from rscl_bench.errors import ArchiveError


@pytest.fixture
def archive(sketches: Path, tmp_path: Path) -> Path:
    """A copy of the sketches, which tests may change."""
    shutil.copytree(sketches / "rs4_proxy", tmp_path / "rs4_proxy")
    return tmp_path


def test_splits_of_the_city_are_places(sketches: Path) -> None:
    splits = {split: SatelliteCityAdapter(sketches, split) for split in ("train", "val", "test")}
    places = {s: {path.parent.name for path in a.files} for s, a in splits.items()}
    assert places["val"] == {"area3"}
    assert places["test"] == {"area4"}
    assert places["train"] == {f"area{number}" for number in (1, 2, 5, 6, 7, 8)}


def test_masks_are_class_indices(archive: Path) -> None:
    adapter = SatelliteCityAdapter(archive, "val")
    indices = np.array([[0, 5, 255, 3]], np.uint8).repeat(2, axis=0)
    rewrite(adapter.files[0], np.zeros((2, 4, 3), np.uint8))
    rewrite(adapter.masks[0], indices)
    mask = adapter.scene(0, with_labels=True).mask
    assert mask is not None
    assert mask.tolist() == indices.tolist()
    rewrite(adapter.masks[0], indices + 6)
    with pytest.raises(ArchiveError, match="holds class 11"):
        adapter.scene(0, with_labels=True)
    rewrite(adapter.masks[0], np.zeros((2, 4, 3), np.uint8))
    with pytest.raises(ArchiveError, match="is no picture of class indices"):
        adapter.scene(0, with_labels=True)


def test_every_place_and_every_mask_must_be_there(archive: Path) -> None:
    root = archive / "rs4_proxy" / "satellite_city"
    (root / SKETCH_MARKER).unlink()
    with pytest.raises(ArchiveError, match=r"holds 2 files area1/\*\.jpg where there are 9"):
        SatelliteCityAdapter(archive, "test")
    shutil.rmtree(root / "area1")
    with pytest.raises(ArchiveError, match=r"area1 holds no \*\.jpg"):
        SatelliteCityAdapter(archive, "test")
    town = archive / "rs4_proxy" / "aerial_town"
    (town / SKETCH_MARKER).unlink()
    with pytest.raises(ArchiveError, match=r"banepa_NP/\*\.jpg where there are 128"):
        AerialTownAdapter(archive, "train")


def test_a_lost_mask_is_named(archive: Path) -> None:
    root = archive / "rs4_proxy" / "satellite_city"
    marker = root / SKETCH_MARKER
    lines = marker.read_text(encoding="utf-8").splitlines()
    lost = root / "area4" / "001_mask.png"
    lost.unlink()
    kept = [line for line in lines if line != "area4/001_mask.png"]
    marker.write_text("\n".join(kept), encoding="utf-8")
    SatelliteCityAdapter(archive, "train")
    with pytest.raises(ArchiveError, match=r"001_mask\.png does not exist"):
        SatelliteCityAdapter(archive, "test")
