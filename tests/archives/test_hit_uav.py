"""HIT-UAV: labels from boxes, lists of frames, and splits by flight."""

import shutil
from pathlib import Path

import pytest

from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.hit_uav import (
    ANNOTATION_FOLDER,
    IMAGE_FOLDER,
    LIST_FOLDER,
    HITUAVAdapter,
    split_of,
)
from rscl_bench.errors import ArchiveError


@pytest.fixture
def archive(sketches: Path, tmp_path: Path) -> Path:
    """A copy of the sketch without its marker, so that it counts as a real archive."""
    shutil.copytree(sketches / "hit_uav", tmp_path / "hit_uav")
    (tmp_path / "hit_uav" / SKETCH_MARKER).unlink()
    return tmp_path


def write_boxes(adapter: HITUAVAdapter, index: int, *names: str) -> Path:
    boxes = "".join(f"<object><name>{name}</name></object>" for name in names)
    path = adapter.boxes[index]
    path.write_text(f"<annotation>{boxes}</annotation>", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("names", "labels"),
    [
        ((), [0, 0, 0, 0]),
        (("DontCare",), [0, 0, 0, 0]),
        (("Car", "Person", "Car", "DontCare"), [1, 1, 0, 0]),
        (("OtherVehicle", "Bicycle"), [0, 0, 1, 1]),
    ],
)
def test_labels_are_the_classes_of_the_boxes(
    archive: Path, names: tuple[str, ...], labels: list[int]
) -> None:
    adapter = HITUAVAdapter(archive, "train")
    write_boxes(adapter, 3, *names)
    found = adapter.scene(3, with_labels=True).labels
    assert found is not None
    assert found.tolist() == labels


def test_strange_boxes_are_refused_by_name(archive: Path) -> None:
    adapter = HITUAVAdapter(archive, "train")
    path = write_boxes(adapter, 0, "Tank")
    with pytest.raises(ArchiveError, match=f"{path.name} has a box of 'Tank'"):
        adapter.scene(0, with_labels=True)
    path.write_text("<annotation><object>", encoding="utf-8")
    with pytest.raises(ArchiveError, match=f"{path.name} is no XML"):
        adapter.scene(0, with_labels=True)
    adapter.scene(0)


def test_flights_have_one_split_each() -> None:
    # First and last frames of flights of the real archive, as its names show them.
    flights = {
        ("1_60_30_0_00000", "1_60_80_0_00726"): "test",
        ("1_70_30_0_00862", "1_130_90_0_04077"): "train",
        ("1_60_30_0_04086", "1_60_90_0_04311"): "val",
        ("1_100_30_0_05069", "1_100_90_0_05311"): "val",
        ("0_120_30_0_05315", "0_120_90_0_05545"): "train",
        ("1_70_30_0_07570", "1_70_90_0_07805"): "train",
        ("0_100_30_0_08067", "0_100_90_0_08307"): "test",
        ("1_80_30_0_08564", "1_120_90_0_09444"): "train",
        ("0_130_30_0_09661", "0_130_90_0_09883"): "test",
        ("1_130_30_0_09949", "1_130_90_0_10170"): "train",
    }
    for (first, last), split in flights.items():
        assert split_of(first) == split_of(last) == split
    assert [split_of(f"1_60_30_0_{number:05d}") for number in (1, 2, 725)] == [None] * 3


def test_a_smaller_copy_is_what_its_lists_say(archive: Path) -> None:
    name = HITUAVAdapter(archive, "train").files[0].stem
    (archive / "hit_uav" / IMAGE_FOLDER / f"{name}.jpg").unlink()
    with pytest.raises(ArchiveError, match=rf"{name}\.jpg does not exist"):
        HITUAVAdapter(archive, "test")
    lists = [archive / "hit_uav" / LIST_FOLDER / f"{part}.txt" for part in ("train", "val", "test")]
    for path in lists:
        lines = path.read_text(encoding="utf-8").splitlines()
        path.write_text("\n".join(line for line in lines if line != name), encoding="utf-8")
    assert len(HITUAVAdapter(archive, "train")) == 59


def test_frames_and_lists_must_agree(archive: Path) -> None:
    root = archive / "hit_uav"
    extra = root / IMAGE_FOLDER / "1_60_30_0_00999.jpg"
    shutil.copy(HITUAVAdapter(archive, "train").files[0], extra)
    with pytest.raises(ArchiveError, match=r"holds 1_60_30_0_00999\.jpg, no part of"):
        HITUAVAdapter(archive, "train")
    extra.unlink()
    path = root / LIST_FOLDER / "val.txt"
    before = path.read_text(encoding="utf-8")
    first = (root / LIST_FOLDER / "train.txt").read_text(encoding="utf-8").splitlines()[0]
    path.write_text(f"{before}{first}\n", encoding="utf-8")
    with pytest.raises(ArchiveError, match=f"{first} stands in two lists"):
        HITUAVAdapter(archive, "train")
    path.write_text(f"{before}frame1\n", encoding="utf-8")
    with pytest.raises(ArchiveError, match="lists 'frame1', which is no name of a frame"):
        HITUAVAdapter(archive, "train")
    path.unlink()
    with pytest.raises(ArchiveError, match=r"val\.txt does not exist"):
        HITUAVAdapter(archive, "train")


def test_boxes_of_the_split_must_exist(archive: Path) -> None:
    name = HITUAVAdapter(archive, "val").files[0].stem
    (archive / "hit_uav" / ANNOTATION_FOLDER / f"{name}.xml").unlink()
    HITUAVAdapter(archive, "train")
    with pytest.raises(ArchiveError, match=rf"{name}\.xml does not exist"):
        HITUAVAdapter(archive, "val")
