"""The images that are part of the package: their origin, their splits, and how they are found."""

import csv
import io
import os
import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from helpers.paths import ROOT
from PIL import Image

import rscl_bench as rb
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.folder import adapter as folder_adapter
from rscl_bench.archives.folder import embedded
from rscl_bench.archives.folder.embedded import EMBEDDED, about
from rscl_bench.archives.hit_uav import split_of
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.errors import ArchiveError, SpecError
from rscl_bench.progress import SilentReporter
from rscl_bench.testing.near_copies import near_copies
from rscl_bench.tiles.source import find_archives

FOLDERS = ("hit-uav", "ucmerced")
#: Largest size of all embedded files together, in bytes.
LIMIT = 8_000_000


def options_of(folder: str) -> Mapping[str, Any]:
    """Return the options with which `mini` reads a folder."""
    scenario = rb.load_scenario("mini")
    return next(task.options for task in scenario.tasks if task.options["root"] == folder)


def opened(folder: str, split: str) -> DatasetAdapter:
    options = options_of(folder)
    return adapter_class("folder", options)(Path("no-data-root"), split, options)


def rows(folder: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((EMBEDDED / folder / "images.csv").read_text("utf-8"))))


# The files


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_file_is_an_image_of_the_table_or_says_where_the_images_come_from(
    folder: str,
) -> None:
    files = {p.relative_to(EMBEDDED / folder).as_posix() for p in _files(EMBEDDED / folder)}
    listed = {row["name"] for row in rows(folder)}
    licence = {"LICENSE"} if folder == "hit-uav" else set()
    assert files == listed | {"images.csv", "about.toml"} | licence
    assert sorted(path.name for path in EMBEDDED.iterdir()) == list(FOLDERS)


def test_embedded_files_are_small() -> None:
    assert sum(path.stat().st_size for path in _files(EMBEDDED)) < LIMIT


def test_images_have_no_metadata() -> None:
    for folder, mode in (("hit-uav", "L"), ("ucmerced", "RGB")):
        for path in _files(EMBEDDED / folder):
            if path.suffix == ".jpg":
                with Image.open(path) as image:
                    assert (image.size, image.mode) == ((96, 96), mode)
                    assert not image.getexif()


def test_the_notice_of_hit_uav_is_beside_its_images() -> None:
    origin = about("hit-uav")
    assert origin.licence.startswith("CC BY 4.0, © J. Suo")
    assert "96 × 96" in origin.changes
    assert origin.citations == ("https://doi.org/10.1038/s41597-023-02066-6",)
    licence = (EMBEDDED / "hit-uav" / "LICENSE").read_text("utf-8")
    assert licence.startswith("Attribution 4.0 International")
    assert about("ucmerced").licence.startswith("public domain")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


# The splits


def test_frames_of_one_flight_are_in_one_split() -> None:
    for row in rows("hit-uav"):
        frame = row["name"].rsplit("_", 2)[0]
        assert split_of(frame) == row["split"]
        assert row["time"] == ("night" if frame.startswith("1_") else "day")


def test_every_scene_class_has_as_many_images_as_every_other() -> None:
    counts: dict[tuple[str, str], int] = {}
    for row in rows("ucmerced"):
        assert row["name"].startswith(f"{row['scene']}/")
        key = (row["scene"], row["split"])
        counts[key] = counts.get(key, 0) + 1
    assert len(counts) == 21 * 3
    assert {(split, count) for (_, split), count in counts.items()} == {
        ("train", 30),
        ("val", 6),
        ("test", 14),
    }


@pytest.mark.slow
def test_no_near_copy_of_a_scene_is_in_two_splits() -> None:
    """Of HIT-UAV, `tests/archives/test_near_copies.py` compares the frames of these splits."""
    train, val, test = (opened("ucmerced", split) for split in ("train", "val", "test"))
    for one, other in ((train, val), (train, test), (val, test)):
        assert near_copies(one, other, 0.75, lambda path: path.parent.name) == []


@pytest.mark.slow
def test_tables_are_those_that_the_script_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Splits and labels come from the archives; the bytes of a JPEG depend on its encoder."""
    data = os.environ.get("RSCL_DATA_ROOT")
    if not data or not (Path(data) / "ucmerced").is_dir() or not (Path(data) / "hit_uav").is_dir():
        pytest.skip("RSCL_DATA_ROOT names no folder with ucmerced and hit_uav")
    monkeypatch.setattr("sys.argv", ["embed_mini.py", data, str(tmp_path)])
    runpy.run_path(str(ROOT / "tools" / "embed_mini.py"), run_name="__main__")
    for folder in FOLDERS:
        made, stored = (
            (root / folder / "images.csv").read_bytes() for root in (tmp_path, EMBEDDED)
        )
        assert made == stored


# How they are found


@pytest.mark.parametrize("data_root", [None, Path("nowhere")])
def test_embedded_archives_are_real_with_and_without_a_data_root(
    data_root: Path | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path))
    archives = find_archives(rb.load_scenario("mini"), data_root, "stop", SilentReporter())
    assert (archives.root, archives.edition) == (EMBEDDED, "real")


def test_sketches_beside_embedded_archives_are_the_sketch_edition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path))
    mini, scene4 = rb.load_scenario("mini"), rb.load_scenario("scene4")
    mixed = mini.model_copy(update={"tasks": (mini.tasks[0], scene4.tasks[1])})
    archives = find_archives(mixed, None, "stop", SilentReporter())
    assert archives.edition == "sketch"
    assert [path.name for path in archives.root.iterdir()] == ["rsscn7"]
    store = archives.open(mixed.tasks[0], with_labels=False)
    assert len(store) == 630


def test_an_unknown_embedded_folder_is_refused() -> None:
    with pytest.raises(
        SpecError, match="Unknown embedded folder 'hit_uav'; did you mean 'hit-uav'"
    ):
        adapter_class("folder", {**options_of("hit-uav"), "root": "hit_uav"})


def test_a_missing_embedded_image_is_no_archive_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "hit-uav"
    folder.mkdir()
    for name in ("about.toml", "images.csv"):
        (folder / name).write_bytes((EMBEDDED / "hit-uav" / name).read_bytes())
    for module in (embedded, folder_adapter):
        monkeypatch.setattr(module, "EMBEDDED", tmp_path)
    options = {**options_of("hit-uav"), "max_pixels": 10_000}  # a class of its own
    with pytest.raises(ArchiveError, match="part of this package; install rscl-bench again"):
        adapter_class("folder", options)(Path("no-data-root"), "train", options)


def test_nothing_of_mini_is_fetched(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    rb.fetch("mini", agree=lambda _: pytest.fail("nothing to agree with"))
    assert "There is nothing to fetch" in capsys.readouterr().out
