"""A folder of images as a source of tiles: identity, damaged files, tables of a scenario."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
from helpers.cli import call, refused
from helpers.folders import THERMAL, noise, write, write_text

from rscl_bench.declarations import load_scenario
from rscl_bench.errors import ArchiveError
from rscl_bench.spec import OnBadTile, Source
from rscl_bench.testing import check_adapter
from rscl_bench.tiles.packing import open_or_pack
from rscl_bench.tiles.store import TileStore

TABLED: dict[str, Any] = {
    "root": "frames",
    "sensor": THERMAL,
    "pattern": "images/*",
    "table": "t.csv",
    "labels": {"by": "columns", "columns": ["cars", "trees"]},
    "splits": {"by": "column", "column": "part"},
}
ROWS = ("name,part,cars,trees", "a,train,1,0", "b,train,0,1", "c,val,1,1", "d,test,0,0")
MASKED: dict[str, Any] = {
    "root": "frames",
    "sensor": THERMAL,
    "pattern": "images/*",
    "labels": {"by": "mask", "path": "masks/{stem}.npy", "classes": ["land", "sea"]},
}


def make(data: Path) -> Path:
    write(data, *(f"images/{name}.png" for name in "abcd"), bands=1)
    write_text(data, "t.csv", *ROWS)
    (data / "frames" / "masks").mkdir()
    for name in "abcd":
        np.save(data / "frames" / "masks" / f"{name}.npy", noise(name, (16, 16)) % 2)
    return data


def packed(
    data: Path,
    cache: Path,
    options: dict[str, Any],
    split: str = "train",
    labels: bool = True,
    on_bad_tile: OnBadTile = "stop",
) -> TileStore:
    source = Source(dataset="folder", split=split, bands=("lwir",), tile_size=8, options=options)
    return open_or_pack(data, source, cache, labels, on_bad_tile=on_bad_tile)


@pytest.mark.parametrize("options", [TABLED, MASKED])
def test_tiles_and_identity_do_not_depend_on_the_place(
    tmp_path: Path, options: dict[str, Any]
) -> None:
    split = "train" if "table" in options else "all"
    first = packed(make(tmp_path / "one"), tmp_path / "cache", options, split)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    second = packed(tmp_path / "two", tmp_path / "cache-2", options, split)
    assert first.source_digest == second.source_digest
    assert np.array_equal(first.tiles[0], noise("a.png", (16, 16, 1))[:8, :8])
    manifest = (first.path / "manifest.json").read_text()
    assert str(tmp_path) not in manifest
    files = set(json.loads(manifest)["files"])
    assert files >= {"images/a.png", "t.csv" if "table" in options else "masks/a.npy"}


def test_class_shares_are_those_of_the_masks(tmp_path: Path) -> None:
    store = packed(make(tmp_path), tmp_path / "cache", MASKED, "all")
    assert store.classes == ("land", "sea")
    mask = noise("a", (16, 16)) % 2
    assert store.shares is not None
    assert store.shares[0].tolist() == [(mask[:8, :8] == n).mean() for n in (0, 1)]


def test_an_edit_of_a_table_packs_the_tiles_again(tmp_path: Path) -> None:
    data, cache = make(tmp_path), tmp_path / "cache"
    before = packed(data, cache, TABLED)
    write_text(data, "t.csv", *ROWS[:2], "b,train,1,1", *ROWS[3:])
    after = packed(data, cache, TABLED)
    assert before.source_digest != after.source_digest
    assert before.labels(0).tolist()[4:] == [[0, 1]] * 4
    assert after.labels(0).tolist()[4:] == [[1, 1]] * 4


def test_tiles_without_labels_do_not_depend_on_masks(tmp_path: Path) -> None:
    data, cache = make(tmp_path), tmp_path / "cache"
    before = packed(data, cache, MASKED, "all", labels=False)
    shutil.rmtree(data / "frames" / "masks")
    assert packed(data, cache, MASKED, "all", labels=False).source_digest == before.source_digest
    with pytest.raises(ArchiveError, match=r"masks/a\.npy does not exist"):
        packed(data, cache, MASKED, "all")


def test_a_list_of_a_split_is_part_of_the_identity(tmp_path: Path) -> None:
    data, cache = make(tmp_path), tmp_path / "cache"
    splits = {"by": "list", "files": {"train": "train.txt"}}
    options = {"root": "frames", "sensor": THERMAL, "pattern": "images/*", "splits": splits}
    digests = set()
    for lines in (("a", "b"), ("b", "a"), ("a",)):
        write_text(data, "train.txt", *lines)
        digests.add(packed(data, cache, options, labels=False).source_digest)
    assert len(digests) == 3


@pytest.mark.parametrize("options", [TABLED, MASKED])
def test_a_damaged_image_is_named_or_left_out(tmp_path: Path, options: dict[str, Any]) -> None:
    split = "train" if "table" in options else "all"
    data, cache = make(tmp_path), tmp_path / "cache"
    damaged = data / "frames" / "images" / "b.png"
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(ArchiveError, match=r"b\.png .*Add --on-bad-tile skip"):
        packed(data, cache, options, split)
    store = packed(data, cache, options, split, on_bad_tile="skip")
    assert store.skipped == ("images/b.png",)


@pytest.mark.parametrize("options", [TABLED, MASKED])
def test_the_contract_of_adapters_holds(tmp_path: Path, options: dict[str, Any]) -> None:
    make(tmp_path / "data")
    with pytest.raises(SkipTest, match="its real archive was checked"):
        check_adapter("folder", tmp_path / "work", options, tmp_path / "data")


# Scenarios.

HEAD = """
name = "mine"
version = "1"
title = "Frames"
default_protocol = "tiny"
"""
REST = """
[protocols.tiny]
image_size = 8
precision = "fp32"
backbone = { name = "vit", patch_size = 4, embed_dim = 8, depth = 1, num_heads = 2 }
training = { epochs = 1, batch_size = 4, learning_rate = 1e-3, warmup_epochs = 0.5 }
"""
SHARED = """
[datasets.frames]
dataset = "folder"
tile_size = 8
[datasets.frames.options]
root = "frames"
sensor = { bands = [{ name = "lwir", wavelength_nm = 10000 }] }
pattern = "images/*"

[[tasks]]
name = "one"
dataset = "frames"
split = "all"
[[probes]]
name = "two"
dataset = "frames"
cut = "whole"
parameters = { k = 1 }
[probes.options]
table = "t.csv"
pattern = "*/?.png"
splits = { by = "column", column = "part" }
labels = { by = "columns", columns = ["cars"] }
"""
WRITTEN = """
[[tasks]]
name = "one"
dataset = "folder"
split = "all"
tile_size = 8
[tasks.options]
root = "frames"
sensor = { bands = [{ name = "lwir", wavelength_nm = 10000 }] }
pattern = "images/*"
[[probes]]
name = "two"
dataset = "folder"
tile_size = 8
cut = "whole"
parameters = { k = 1 }
[probes.options]
root = "frames"
sensor = { bands = [{ name = "lwir", wavelength_nm = 10000 }] }
table = "t.csv"
pattern = "*/?.png"
splits = { by = "column", column = "part" }
labels = { by = "columns", columns = ["cars"] }
"""


def scenario(folder: Path, text: str) -> str:
    path = folder / "mine.toml"
    path.write_text(HEAD + text + REST, encoding="utf-8")
    return str(path)


def test_a_table_of_datasets_says_what_tasks_and_probes_repeat(tmp_path: Path) -> None:
    shared = load_scenario(scenario(tmp_path, SHARED))
    assert shared == load_scenario(scenario(tmp_path, WRITTEN))
    assert shared.tasks[0].bands == ("lwir",)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("datasets.frames", "datasets.aid", "Unknown dataset 'frames'"),
        ('"frames"\nsplit', '"frame"\nsplit', "Unknown dataset 'frame'; did you mean 'frames'?"),
        ("tile_size = 8", 'split = "x"', "'datasets.frames.split'; did you mean"),
        ("tile_size = 8", 'cut = "half"', "field 'tasks.0.tile_size': Field required"),
        ("[[tasks]]", '[datasets.aid]\ndataset = "aid"\n[[tasks]]', "datasets.aid has the name of"),
        ("[[tasks]]", '[datasets.x]\ndataset = "aid"\n[[tasks]]', 'has dataset = "x"; use datas'),
        ('dataset = "folder"\n', "", "field 'datasets.frames.dataset': Field required"),
        ('split = "all"', "split = 3", "field 'tasks.0.split': Input should be a valid string"),
        (
            'dataset = "frames"\nsplit',
            "dataset = 3\nsplit",
            "field 'tasks.0.dataset': Input should",
        ),
    ],
)
def test_a_faulty_table_of_datasets_is_refused(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    assert old in SHARED
    path = scenario(tmp_path, SHARED.replace(old, new))
    assert message in refused("run", "--scenario", path, "--method", "finetune")


def test_the_sketch_edition_is_refused_with_its_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    sentence = refused("run", "--scenario", scenario(tmp_path, SHARED), "--method", "finetune")
    assert sentence == (
        "Dataset folder frames has no sketch: give the folder of its real archive with --data-root."
    )


def test_a_record_of_a_folder_has_no_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    make(tmp_path / "data")
    result = call(
        "run",
        *("--scenario", scenario(tmp_path, SHARED), "--method", "finetune", "--device", "cpu"),
        *("--data-root", tmp_path / "data", "--out", tmp_path / "runs"),
        *("--set", "objective.decoder_dim=8", "--set", "objective.decoder_heads=2"),
    )
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "runs").rglob("record.json")
    text = path.read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    identity = json.loads(text)["identity"]
    assert set(identity["data"]) == {"tasks.one", "probes.two.train", "probes.two.test"}
