"""Hurricane damage: names of chips, and splits by place."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.hurricane_damage import (
    BLOCK,
    MARGIN,
    HurricaneDamageAdapter,
    coordinates,
    split_of,
)
from rscl_bench.errors import ArchiveError


@pytest.fixture
def archive(sketches: Path, tmp_path: Path) -> Path:
    """A copy of the sketch without its marker, so that it counts as a real archive."""
    shutil.copytree(sketches / "hurricane_damage", tmp_path / "hurricane_damage")
    (tmp_path / "hurricane_damage" / SKETCH_MARKER).unlink()
    return tmp_path


def test_coordinates_are_read_from_the_published_names() -> None:
    assert coordinates(Path("-93.65901099999999_30.026386.jpeg")) == (-93_659_011, 30_026_386)
    for name in ("damage.jpeg", "-93.6_x.jpeg", "nan_30.0.jpeg", "inf_30.0.jpeg", "1_2_3.jpeg"):
        with pytest.raises(ArchiveError, match="is not named LONGITUDE_LATITUDE"):
            coordinates(Path(name))


def test_places_of_two_splits_are_at_least_two_margins_apart() -> None:
    """On a grid of places finer than the margin, neighbours of different splits do not exist."""
    step = MARGIN // 2
    side = 5 * BLOCK // step
    west, south = -95_700_000, 29_700_000
    splits = np.array(
        [
            [split_of(west + step * x, south + step * y) or "" for x in range(side)]
            for y in range(side)
        ]
    )
    assert set(splits.ravel()) == {"", "train", "val", "test"}
    reach = 2 * MARGIN // step
    for down in range(reach):
        for right in range(reach):
            one = splits[: side - down, : side - right]
            other = splits[down:, right:]
            mirrored = splits[: side - down, right:], splits[down:, : side - right]
            for a, b in ((one, other), mirrored):
                assert ((a == b) | (a == "") | (b == "")).all()


def test_a_split_is_by_place_whatever_the_published_folder(sketches: Path) -> None:
    for split in ("train", "val", "test"):
        adapter = HurricaneDamageAdapter(sketches, split)
        assert {path.parts[-3] for path in adapter.files} == {
            "train_another",
            "validation_another",
            "test_another",
        }
        assert all(split_of(*coordinates(path)) == split for path in adapter.files)
    official = HurricaneDamageAdapter(sketches, "official-test")
    assert {path.parts[-3] for path in official.files} == {"test_another"}


def test_labels_are_the_folders(sketches: Path) -> None:
    adapter = HurricaneDamageAdapter(sketches, "train")
    for index in (0, len(adapter) - 1):
        labels = adapter.scene(index, with_labels=True).labels
        assert labels is not None
        assert labels.tolist() == [
            int(adapter.files[index].parent.name == name) for name in ("damage", "no_damage")
        ]


def test_smaller_copies_are_read_but_no_empty_folder(archive: Path) -> None:
    folder = archive / "hurricane_damage" / "test_another" / "damage"
    chips = sorted(folder.iterdir())
    for chip in chips[1:]:
        chip.unlink()
    assert len(HurricaneDamageAdapter(archive, "official-test")) > 1
    chips[0].unlink()
    with pytest.raises(ArchiveError, match=r"test_another/damage holds no \*\.jpeg"):
        HurricaneDamageAdapter(archive, "train")


def test_a_chip_without_coordinates_is_refused(archive: Path) -> None:
    folder = archive / "hurricane_damage" / "train_another" / "damage"
    next(iter(folder.iterdir())).rename(folder / "copy.jpeg")
    with pytest.raises(ArchiveError, match=r"copy\.jpeg is not named LONGITUDE_LATITUDE"):
        HurricaneDamageAdapter(archive, "train")
