"""The script of the workflow refuses a branch that changes what is published."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.paths import ROOT

SCRIPT = ROOT / ".github" / "unchanged-records.sh"


def git(folder: Path, *words: str) -> str:
    author = ("-c", "user.name=tester", "-c", "user.email=tester@example.org")
    command = ["git", "-C", str(folder), *author, *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    records = tmp_path / "leaderboards" / "records"
    records.mkdir(parents=True)
    (records / "old.json").write_text("{}")
    (tmp_path / "leaderboards" / "README.md").write_text("old")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "--message", "base")
    return tmp_path


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda records: (records / "new.json").write_text("{}"), 0),
        (lambda records: (records.parent / "README.md").write_text("new"), 0),
        (lambda records: (records / "old.json").write_text("{ }"), 1),
        (lambda records: (records / "old.json").unlink(), 1),
        (lambda records: (records / "old.json").rename(records / "other.json"), 1),
    ],
    ids=["added", "page", "edited", "removed", "renamed"],
)
def test_published_files_stay(
    repository: Path, change: Callable[[Path], object], status: int
) -> None:
    base = git(repository, "rev-parse", "HEAD")
    change(repository / "leaderboards" / "records")
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", "a change")
    done = subprocess.run(
        ["bash", str(SCRIPT), str(repository), base], capture_output=True, text=True
    )
    assert done.returncode == status, done.stderr
    assert ("old.json" in done.stdout) == bool(status)
