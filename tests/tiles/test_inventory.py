"""`rscl-bench data list` and `data clean`."""

import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from helpers.cli import call, refused
from helpers.paths import ADAPTERS

from rscl_bench import registry
from rscl_bench.archives.sketch import VERSION
from rscl_bench.scratch import locked
from rscl_bench.spec import Source
from rscl_bench.tiles import inventory
from rscl_bench.tiles.inventory import CacheEntry, entries
from rscl_bench.tiles.packing import open_or_pack
from rscl_bench.tiles.store import TileStore

Filled = dict[str, Path]


def split_of(cache: Path, data: Path, split: str) -> TileStore:
    source = Source(dataset=f"{ADAPTERS}:Toy", split=split, tile_size=24)
    return open_or_pack(data, source, cache)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def filled(cache: Path, toy_data: Path, tmp_path: Path) -> Filled:
    """A cache with one folder of every kind."""
    tiles, gone = cache / "tiles", tmp_path / "gone"
    shutil.copytree(toy_data, gone)
    folders = {
        "used": split_of(cache, toy_data, "train").path,
        "gone": split_of(cache, gone, "val").path,
        "older": tiles / "aid-train-0123456789abcdef-0123456789abcdef",
        "unfinished": tiles / ".toy-train-0123456789abcdef-0123456789abcdef-0",
        "sketch": cache / f"sketch-v{VERSION}" / "toy",
        "old sketch": cache / "sketch-v0" / "toy",
        "sketching": cache / "sketch-v0" / ".us3d-a1b2c3d4",
    }
    shutil.rmtree(gone)
    for name in ("older", "unfinished", "sketching"):
        folders[name].mkdir(parents=True)
        (folders[name] / "tiles.raw").write_bytes(bytes(1000))
    older = {"format": 1, "dataset": "aid", "split": "train", "count": 7}
    (folders["older"] / "manifest.json").write_text(json.dumps(older))
    for name in ("sketch", "old sketch"):
        adapter = registry.load("datasets", f"{ADAPTERS}:Toy")
        adapter.write_sketch(folders[name].parent, np.random.default_rng(0))
    (cache / "notes.txt").write_text("of the user")
    return folders


def test_every_folder_is_listed(cache: Path, filled: Filled) -> None:
    listed = {entry.path: entry for entry in entries(cache)}
    assert set(listed) == set(filled.values())
    unused = {name: listed[path].unused for name, path in filled.items()}
    assert unused["used"] == unused["sketch"] == ""
    assert unused["older"] == "packed by an older version"
    assert unused["gone"].startswith("no archive in ")
    assert unused["old sketch"] == "drawn by an older version"
    assert unused["unfinished"] == unused["sketching"] == "left by a process that was interrupted"
    used, older = listed[filled["used"]], listed[filled["older"]]
    assert (used.kind, used.dataset, used.split, used.tiles) == ("tiles", "toy", "train", 20)
    assert used.size == sum(path.stat().st_size for path in used.path.iterdir())
    assert (older.dataset, older.split, older.tiles, older.used) == ("aid", "train", 7, None)


def test_last_use_is_known(cache: Path, toy_data: Path) -> None:
    store = split_of(cache, toy_data, "train")
    (place,) = store.path.glob("place-*.json")
    os.utime(place, (1e9, 1e9))
    assert entries(cache)[0].used == datetime.fromtimestamp(1e9, UTC)
    before = datetime.now(UTC)
    split_of(cache, toy_data, "train")
    used = entries(cache)[0].used
    assert used is not None
    assert (used - before).total_seconds() > -1


def test_list_command(cache: Path, filled: Filled) -> None:
    lines = call("data", "list").stdout.splitlines()
    assert f"  tiles/{filled['older'].name}" in lines
    (line,) = (line for line in lines if line.startswith("tiles aid train: "))
    assert line.endswith(", 7 tiles, not needed: packed by an older version")
    size = sum(entry.size for entry in entries(cache))
    assert lines[-1] == f"7 folders, {size / 1024:.1f} KiB, in {cache}"


def test_empty_cache(cache: Path) -> None:
    assert call("data", "list").stdout == f"0 folders, 0 bytes, in {cache}\n"
    assert call("data", "clean", "--all").stdout == f"0 folders, 0 bytes, in {cache}\n"


CHOICES = [
    (("--all",), {"used", "gone", "older", "unfinished", "sketch", "old sketch", "sketching"}),
    (("--unused",), {"gone", "older", "unfinished", "old sketch", "sketching"}),
    (("--dataset", "toy"), {"used", "gone", "unfinished", "sketch", "old sketch"}),
    (("--dataset", "aid"), {"older"}),
]


@pytest.mark.parametrize(("options", "removed"), CHOICES)
def test_clean_removes_what_was_chosen(
    cache: Path, filled: Filled, options: tuple[str, ...], removed: set[str]
) -> None:
    result = call("data", "clean", *options, "--yes")
    assert result.exit_code == 0, result.output
    assert {name for name, path in filled.items() if not path.exists()} == removed
    assert (cache / "notes.txt").read_text() == "of the user"
    assert not list(cache.rglob("*.lock"))


def test_cleaned_tiles_are_packed_again(cache: Path, toy_data: Path) -> None:
    before = split_of(cache, toy_data, "train")
    call("data", "clean", "--all", "--yes")
    assert split_of(cache, toy_data, "train").digest == before.digest


def test_clean_asks(cache: Path, filled: Filled, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[str] = []

    def confirm(question: str) -> bool:
        answers.append(question)
        return False

    monkeypatch.setattr("typer.confirm", confirm)
    assert call("data", "clean", "--all").exit_code == 0
    assert answers == ["Remove these folders?"]
    assert all(path.exists() for path in filled.values())


def test_work_in_progress_stays(cache: Path, filled: Filled) -> None:
    found = entries(cache)
    with locked(filled["unfinished"]):
        assert filled["unfinished"] not in {entry.path for entry in entries(cache)}
        inventory.remove(found)
    assert {name for name, path in filled.items() if path.exists()} == {"unfinished"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "Say what to remove: give one of --all, --dataset NAME and --unused."),
        (("--all", "--unused"), "Say what to remove"),
        (("--dataset", "ai"), "Unknown dataset in the cache 'ai'; did you mean 'aid'?"),
    ],
)
def test_unclear_choices_are_refused(
    cache: Path, filled: Filled, options: tuple[str, ...], message: str
) -> None:
    assert message in refused("data", "clean", *options)
    assert all(path.exists() for path in filled.values())


def test_a_folder_that_cannot_be_removed_is_named(
    cache: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = split_of(cache, toy_data, "train")

    def refuse(path: Path, *_: object) -> Callable[[CacheEntry], None]:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    message = refused("data", "clean", "--all", "--yes")
    assert message.startswith(f"{store.path} cannot be removed (Permission denied)")
