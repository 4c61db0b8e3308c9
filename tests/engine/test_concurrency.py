"""Several processes write records and rebuild one leaderboard, and some processes are killed."""

import csv
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.paths import ROOT
from helpers.records import FOLDER, save

from rscl_bench.results.record import read_record

WRITER = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from helpers.records import save
from rscl_bench.leaderboards.build import build_leaderboard
folder, number, count = Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
for turn in range(count):
    save(folder / "records" / f"{number}-{turn}", f"m{number}-{turn}", 1.0 + turn, seeds=1)
    print(turn, flush=True)
    build_leaderboard(folder / "records", folder / "out")
"""


def writer(folder: Path, number: int, count: int) -> "subprocess.Popen[str]":
    arguments = [str(ROOT / "tests"), str(folder), str(number), str(count)]
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True
    )


def methods(folder: Path) -> list[str]:
    with (folder / "out" / FOLDER / "leaderboard.csv").open(newline="") as file:
        return [row["method"] for row in csv.DictReader(file) if row["reference"] == ""]


def at_once(folder: Path, processes: int, turns: int, kills: int) -> None:
    rng = random.Random(0)
    started = [writer(folder, number, turns) for number in range(processes)]
    for victim in started[:kills]:
        assert victim.stdout is not None
        victim.stdout.readline()
        time.sleep(rng.uniform(0, 0.5))
        victim.kill()
    for process in started:
        process.communicate()
    assert [p.returncode for p in started] == [-9] * kills + [0] * (processes - kills)
    finished = sorted((folder / "records").rglob("*.json"))
    names = sorted(str(read_record(path).identity.method["name"]) for path in finished)
    expected = [f"m{n}-{turn}" for n in range(kills, processes) for turn in range(turns)]
    assert set(expected) <= set(names)
    # A killed process may have written the last record, so the leaderboard is built once more.
    save(folder / "records" / "last", "last", 1.0, seeds=1)
    last = writer(folder, processes, 1)
    last.communicate()
    assert last.returncode == 0
    listed = methods(folder)
    assert sorted(listed) == sorted([*names, "last", f"m{processes}-0"])
    assert len(set(listed)) == len(listed)
    assert not list(folder.rglob("*.tmp")) or kills


def test_two_processes(tmp_path: Path) -> None:
    at_once(tmp_path, processes=2, turns=3, kills=1)


@pytest.mark.fault
def test_eight_processes_three_of_them_killed(tmp_path: Path) -> None:
    at_once(tmp_path, processes=8, turns=6, kills=3)
