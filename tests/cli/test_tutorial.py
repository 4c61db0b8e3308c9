"""The tutorial, followed literally in an empty folder."""

import re
from pathlib import Path

import pytest
from helpers.pages import code_blocks, read
from helpers.paths import ROOT
from helpers.tutorial import follow, lines_without_numbers

PAGE = read("docs", "tutorial.md")
INSTALL, REST = PAGE[: PAGE.index("## Train")], PAGE[PAGE.index("## Train") :]


def test_installation_is_that_of_the_readme() -> None:
    (install,) = code_blocks(INSTALL)
    command = install.code.splitlines()[0]
    assert command.endswith("pip install .")
    assert command in read("README.md")


def test_numbers_and_frames_are_left_out_of_a_comparison() -> None:
    printed = "┏━━━┳━━━┓\n┃ after task ┃ mAP ┃\n│ aerial │ 25.36 │\n\n1,002 rows in -4.1 s\n"
    assert lines_without_numbers(printed) == ["after task mAP", "aerial #", "# rows in # s"]


@pytest.mark.slow
def test_every_step_does_what_the_page_says(tmp_path: Path) -> None:
    folder = tmp_path / "tutorial"
    folder.mkdir()
    (tmp_path / "leaderboards").symlink_to(ROOT / "leaderboards")
    steps = list(follow(REST, folder))
    assert len(steps) >= 8
    for step in steps:
        printed = lines_without_numbers(step.output)
        for line in lines_without_numbers(step.promised):
            assert line in printed, f"{step.code}\n{step.output}"
    files = re.findall(r"`((?:runs|archives)/[\w./-]+|[\w-]+\.(?:svg|csv|zip))`", REST)
    assert len(files) >= 5
    for name in files:
        assert (folder / name).exists(), name
