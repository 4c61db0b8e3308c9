"""The commands of docs/watching.md run in their order, on the toy scenario in place of scene4."""

from pathlib import Path

import pytest
from helpers.cli import call
from helpers.pages import commands, read
from helpers.paths import TOY

from rscl_bench.engine.run_log import LOGS
from rscl_bench.results.losses import COLUMNS

PAGE = read("docs", "watching.md")


@pytest.mark.slow
def test_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    replaced = {"scene4": str(TOY), "runs/scene4-sketch": "runs/toy-sketch"}
    outputs: list[str] = []
    for words in (words for words in commands(PAGE) if len(words) > 2):  # not one only named
        if words[0] == "run" and "--force" not in words and outputs:
            words.append("--force")  # the page has this run twice, to show two options
        result = call(*(replaced.get(word, word) for word in words))
        assert result.exit_code == 0, result.output
        outputs.append(result.stdout)
    assert len(outputs) == 3
    assert (tmp_path / "loss.svg").read_text().startswith("<?xml")
    (run,) = (tmp_path / "runs" / "toy-sketch").glob("*/cosmae/*")
    assert (run / "logs" / "csv" / "metrics.csv").is_file()
    assert list((run / "logs" / "tensorboard").glob("events*"))
    assert "online, validation split: task 1 first, epoch 1: toy micro-mAP" in outputs[2]


def test_page_has_every_column_and_logger() -> None:
    for name in (*COLUMNS, *LOGS):
        assert f"`{name}`" in PAGE
