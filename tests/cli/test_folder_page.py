"""The examples of docs/folder.md run as they stand on the page, on small files."""

import csv
import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from helpers.cli import ONE_EPOCH, call, records_in
from helpers.pages import code_blocks, read, write_examples
from torch.utils.data import TensorDataset

import rscl_bench as rb
from rscl_bench.archives.files import write_picture
from rscl_bench.archives.folder.options import FolderOptions
from rscl_bench.results.schema import RunRecord
from rscl_bench.spec import validated


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path_factory.getbasetemp() / "folder-cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of the page, and the thermal frames of which it speaks."""
    folder = tmp_path_factory.mktemp("folder-page")
    write_examples(folder)
    rng = np.random.default_rng(0)
    header = next(b.code for b in code_blocks(read("docs", "folder.md")) if b.language == "text")
    rows = [header.splitlines()[0].split(",")]
    for number in range(48):
        people, cars = rng.integers(0, 3, 2)
        split = "train" if number < 32 else "val" if number < 36 else "test"
        time = "night" if number % 2 else "day"
        rows.append([f"{number:04}", split, time, str(people), str(cars)])
        frame = rng.integers(20, 60, (64, 64), np.uint8) + 40 * people.astype(np.uint8)
        write_picture(folder / "archives" / "thermal" / "frames" / f"{number:04}.png", frame)
    with (folder / "archives" / "thermal" / "frames.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder


def run(examples: Path, out: Path, scenario: str, method: str) -> RunRecord:
    archives = ("--data-root", examples / "archives", "--out", out)
    arguments = ("--scenario", examples / scenario, "--method", method, *archives, *ONE_EPOCH)
    result = call("run", *arguments)
    assert result.exit_code == 0, result.output
    (record,) = records_in(out)
    return record


def test_thermal_frames_are_one_toml(examples: Path, tmp_path: Path) -> None:
    record = run(examples, tmp_path, "thermal.toml", "finetune")
    assert [task.tiles for task in record.tasks] == [32]
    assert [probe.labels for probe in record.probes] == [2]
    assert record.tasks[0].final_loss is not None


def test_a_stream_of_day_and_night_is_at_most_forty_lines(examples: Path, tmp_path: Path) -> None:
    record = run(examples, tmp_path, "day-night.toml", "cosmae")
    assert [(task.name, task.tiles) for task in record.tasks] == [("day", 16), ("night", 16)]
    text = (examples / "day-night.toml").read_text(encoding="utf-8")
    assert len([line for line in text.splitlines() if line.strip()]) <= 40


def test_rules_on_the_page_are_valid() -> None:
    blocks = [block.code for block in code_blocks(read("docs", "folder.md"))]
    lines = [line for code in blocks for line in code.splitlines()]
    rules = [line for line in lines if line.startswith(("labels = ", "splits = "))]
    assert len(rules) >= 8
    for rule in rules:
        options: dict[str, Any] = {"root": "x", "sensor": "rgb8", "table": "x.csv"}
        validated(FolderOptions, {**options, **tomllib.loads(rule)}, rule)


def own_data(examples: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("own_data", examples / "own_data.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_torch_dataset_is_a_scenario(examples: Path, tmp_path: Path) -> None:
    images = torch.arange(40 * 3 * 64 * 64).remainder(251).to(torch.uint8).view(40, 3, 64, 64)
    labels = torch.arange(40) % 2
    data = TensorDataset(images, labels)
    own = own_data(examples).scenario(data, data, str(tmp_path / "archives"))
    settings = {
        "training.epochs": 2,
        "training.batch_size": 8,
        "image_size": 32,
        "backbone.embed_dim": 24,
        "backbone.depth": 1,
        "backbone.num_heads": 2,
        "objective.decoder_dim": 24,
        "objective.decoder_depth": 1,
        "objective.decoder_heads": 2,
    }
    record = rb.run(
        own,
        "finetune",
        data_root=tmp_path / "archives",
        out=tmp_path / "runs",
        set=settings,
        device="cpu",
        verbose=False,
    )
    assert [task.tiles for task in record.tasks] == [40]
    assert record.probes[0].labels == 2
    stores = rb.open_tiles(own, data_root=tmp_path / "archives", verbose=False)
    assert np.array_equal(stores["task mine"].tiles, np.moveaxis(images.numpy(), 1, 3))
    assert np.array_equal(stores["probe mine test"].labels(0)[:, 1], labels.numpy())
