"""The commands and the Python of docs/plots.md run as they stand on the page."""

from pathlib import Path
from typing import Any

import pytest
from helpers.cli import call
from helpers.pages import code_blocks, commands, read
from helpers.paths import ROOT

from rscl_bench.leaderboards.export import COLUMNS

PAGE = read("docs", "plots.md")


@pytest.fixture(autouse=True)
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the published records and tables."""
    (tmp_path / "leaderboards").symlink_to(ROOT / "leaderboards")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("words", commands(PAGE), ids=" ".join)
def test_commands_of_the_page_run(words: list[str], published: Path) -> None:
    if len(words) < 4:  # a command that is only named
        return
    before = set(published.iterdir())
    result = call(*words)
    assert result.exit_code == 0, result.output
    written = {path.name for path in set(published.iterdir()) - before}
    if "--out" in words:
        assert written == {words[words.index("--out") + 1]}
    elif words[0] == "plot":
        assert written == {f"{words[1]}.pdf"}
    else:
        assert result.stdout.startswith("| method |")


@pytest.mark.slow
def test_python_of_the_page_runs() -> None:
    names: dict[str, Any] = {}
    for block in code_blocks(PAGE):
        if block.language == "python":
            exec(block.code, names)
    assert "\\toprule" in names["latex"]
    assert names["figure"].axes


def test_page_has_every_column() -> None:
    for column in COLUMNS:
        assert f"`{column}`" in PAGE


def test_picture_of_the_page_is_that_of_the_records(published: Path) -> None:
    """The values are compared; another version of matplotlib may change other bytes."""
    (words,) = [w for w in commands(PAGE) if w[:2] == ["plot", "matrix"]]
    assert call(*words).exit_code == 0
    drawn = (published / "matrix.svg").read_text()
    shown = read("docs", "images", "matrix-shift4-cosmae.svg")
    comments = [line for line in drawn.splitlines() if line.strip().startswith("<!--")]
    assert len(comments) > 25  # a comment holds each text whose glyphs are drawn as paths
    assert comments == [line for line in shown.splitlines() if line.strip().startswith("<!--")]
