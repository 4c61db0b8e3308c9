"""The stream of one's own that the README shows runs as it stands there, on the embedded frames."""

import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from helpers.cli import call, records_in
from helpers.pages import Block, code_blocks, commands, read

import rscl_bench as rb
from rscl_bench.archives.folder.embedded import EMBEDDED
from rscl_bench.declarations import load_scenario

TOML = "and test images of both times, `day-night.toml`:"


def stream() -> Block:
    return next(block for block in code_blocks(read("README.md")) if block.line_before == TOML)


def command() -> list[str]:
    (words,) = [words for words in commands(read("README.md")) if "./day-night.toml" in words]
    return words


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with the files of the page, in which the commands are called."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    folder = tmp_path / "archives" / "thermal"
    folder.mkdir(parents=True)
    table = pd.read_csv(EMBEDDED / "hit-uav" / "images.csv")
    table = table[table["split"] != "val"]  # which has no image by day
    table.to_csv(folder / "images.csv", index=False)
    for name in table["name"]:
        shutil.copy(EMBEDDED / "hit-uav" / name, folder)
    (tmp_path / "day-night.toml").write_text(stream().code, encoding="utf-8")
    return tmp_path


def test_the_stream_is_at_most_forty_lines_with_its_command() -> None:
    lines = [line for line in stream().code.splitlines() if line.strip()]
    assert len(lines) + 1 <= 40


def test_the_stream_is_a_scenario_with_a_probe_of_each_domain(workplace: Path) -> None:
    scenario = load_scenario("./day-night.toml")
    assert [(task.name, task.options["select"]) for task in scenario.tasks] == [
        ("day", {"time": ["day"]}),
        ("night", {"time": ["night"]}),
    ]
    assert [probe.task for probe in scenario.probes] == ["day", "night"]
    named = read("README.md").split("has the columns ")[1].split(" this is a scenario")[0]
    table = pd.read_csv(workplace / "archives" / "thermal" / "images.csv")
    stores = rb.open_tiles("./day-night.toml", data_root="archives", verbose=False)
    for time in ("day", "night"):
        own = table[table["time"] == time]
        assert len(stores[f"task {time}"]) == (own["split"] == "train").sum()
        assert len(stores[f"probe {time} test"]) == (own["split"] == "test").sum()
    columns = re.findall(r"`(\w+)`", named)
    assert len(columns) == 6
    assert set(columns) <= set(table.columns)


@pytest.mark.slow
def test_the_command_trains_and_builds_a_leaderboard_with_forgetting(workplace: Path) -> None:
    words = command()
    result = call(*words)
    assert result.exit_code == 0, result.output
    records = records_in(workplace / "runs")
    assert len(records) == 2 * 3
    for record in records:
        assert record.identity.edition == "real"
        assert record.continual.micro.forgetting is not None
    (board,) = workplace.glob("runs/leaderboards/**/leaderboard.md")
    text = board.read_text(encoding="utf-8")
    assert "forgetting" in text
    assert "±" in result.stdout
    assert "Test images: in brackets the 95 %" in text
