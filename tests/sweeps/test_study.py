"""Studies: one TOML declares sweeps and grids; published runs are not run again."""

import shutil
import sys
from pathlib import Path

import pytest
from helpers.cli import call, refused
from helpers.paths import TOY

from rscl_bench.errors import SpecError
from rscl_bench.results.published import published_path, published_records
from rscl_bench.results.record import read_record
from rscl_bench.results.tuning import read_tuning
from rscl_bench.studies import load_study
from rscl_bench.sweeps import pool

STUDY = f"""
title = "A sweep and a grid"
publish = "published"

[[stages]]
name = "methods"
scenario = "{TOY}"
methods = ["finetune", "er"]
seeds = [0]

[[stages]]
name = "weights"
scenario = "{TOY}"
methods = ["ewc"]
seeds = [7]
grid = {{ "strategies.ewc.weight" = [0.1, 1.0] }}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY, "utf-8")
    return path


@pytest.mark.slow
def test_a_study_is_run_once_on_whatever_machine(
    file: Path, tmp_path: Path, toy_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    command = ("study", file, "--data-root", toy_data, "--device", "cpu")
    plan = call(*command, "--plan", "--out", tmp_path / "runs").stdout
    assert "methods: 0 of 2 runs recorded" in plan
    assert "weights: 0 of 2 runs recorded" in plan
    assert not (tmp_path / "published").exists()

    done = call(*command, "--out", tmp_path / "runs")
    assert "methods: 2 of 2 runs recorded" in done.stdout
    records = published_records(tmp_path / "published" / "records")
    assert len(records) == 2
    for run, path in records.items():
        record = read_record(path)
        assert record.id == run
        assert path == published_path(record, tmp_path / "published" / "records")
    assert len(published_records(tmp_path / "published" / "tuning" / "records")) == 2
    (choice,) = (tmp_path / "published" / "tuning").glob("*/*/ewc.json")
    assert read_tuning(choice).grid == {"strategies.ewc.weight": (0.1, 1.0)}

    # A plan writes nothing, also where runs wait to be published.
    shutil.move(tmp_path / "published", tmp_path / "kept")
    assert (
        "methods: 2 of 2 runs recorded"
        in call(*command, "--plan", "--out", tmp_path / "runs").stdout
    )
    assert not (tmp_path / "published").exists()
    shutil.move(tmp_path / "kept", tmp_path / "published")

    # Another machine has the published files and no runs; every process would fail.
    monkeypatch.setattr(pool, "COMMAND", (sys.executable, "-c", "raise SystemExit(7)"))
    again = call(*command, "--out", tmp_path / "elsewhere")
    assert again.exit_code == 0, again.output
    assert "2 runs: 2 recorded before, 0 to do" in again.stdout

    next(iter(records.values())).unlink()
    failed = call(*command, "--stages", "methods", "--out", tmp_path / "elsewhere")
    assert failed.exit_code == 1
    assert "methods: 1 of 2 runs recorded, 1 to do, about" in failed.stdout


def test_paths_are_relative_to_the_file(file: Path, tmp_path: Path) -> None:
    file.write_text(STUDY.replace('"er"', '"mine/own.toml"'), "utf-8")
    study = load_study(file)
    assert study.publish == str(tmp_path / "published")
    assert study.stages[0].methods == ("finetune", str(tmp_path / "mine" / "own.toml"))
    assert [stage.points() for stage in study.stages] == [2, 2]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('name = "weights"', 'name = "methods"', "two stages have the name 'methods'"),
        ("seeds = [7]", "seeds = []", r"field 'stages.1.seeds': .* at least 1 item"),
        ("seeds = [7]", "seeds = [7]\nsed = 1", "did you mean 'stages.1.seeds'"),
    ],
)
def test_a_wrong_study_is_refused(file: Path, old: str, new: str, message: str) -> None:
    file.write_text(STUDY.replace(old, new), "utf-8")
    with pytest.raises(SpecError, match=message):
        load_study(file)


def test_an_unknown_stage_is_refused(file: Path) -> None:
    assert "did you mean 'weights'" in refused("study", file, "--stages", "weight")
