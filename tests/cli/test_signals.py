"""Signals in processes: `finally` blocks run, the status names the signal, the cursor returns."""

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cli import START, spawn
from helpers.paths import TOY

from rscl_bench.interruption import SIGNALS

#: `data sketch`, whose work is to wait within a temporary folder.
WAITS = (
    "import sys, time, tempfile; from pathlib import Path; from rscl_bench import api\n"
    "def wait(scenario, out):\n"
    "    with tempfile.TemporaryDirectory(dir=out):\n"
    "        print('ready', flush=True)\n"
    "        time.sleep(100)\n"
    "api.render_sketches = wait\n"
)


def waiting(folder: Path, script: str = START) -> "subprocess.Popen[str]":
    given = ("data", "sketch", "--scenario", "rs4", "--out", folder)
    process = spawn(*given, script=WAITS + script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_runs_the_finally_blocks_of_every_command(
    tmp_path: Path, number: signal.Signals
) -> None:
    process = waiting(tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert err == f"interrupted by {number.name}; nothing was recorded\n"
    assert list(tmp_path.iterdir()) == []


def test_an_error_that_the_signal_causes_is_an_interruption(tmp_path: Path) -> None:
    """As where a signal ends the workers too, and their end is an error of its own."""
    breaks = (
        "from rscl_bench.errors import ArtefactError\n"
        "def fail(_):\n    raise ArtefactError('A worker died.')\n"
        "tempfile.TemporaryDirectory.cleanup = fail\n"
    )
    process = waiting(tmp_path, breaks + START)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert err == "interrupted by SIGTERM; nothing was recorded\n"


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    ignoring = "signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    before, start = START.split("from rscl_bench")
    process = waiting(tmp_path, f"{before}{ignoring}from rscl_bench{start}")
    process.send_signal(signal.SIGHUP)  # as `nohup` promises
    with pytest.raises(subprocess.TimeoutExpired):
        process.communicate(timeout=0.5)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 143


def test_a_second_signal_ends_the_process_at_once(tmp_path: Path) -> None:
    slow = (
        "tempfile.TemporaryDirectory.cleanup = "
        "lambda _: (print('slow', flush=True), time.sleep(100))\n"
    )
    process = waiting(tmp_path, slow + START)
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "slow\n"
    process.send_signal(signal.SIGHUP)
    process.communicate(timeout=20)
    assert process.returncode == 129


def on_a_terminal(tmp_path: Path, *numbers: signal.Signals) -> tuple[int, bytes]:
    """Send signals to a run on a terminal; return its exit status and what the terminal got."""
    ours, theirs = pty.openpty()
    given = ("run", "--scenario", TOY, "--method", "finetune", "--device", "cpu")
    more = ("--set", "training.epochs=100000", "--out", tmp_path / "runs")
    environment = {**os.environ, "RSCL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}
    process = spawn(*given, *more, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    got = b""
    try:
        while chunk := os.read(ours, 1 << 16):
            got += chunk
            if got.count(b"training task 1") > 3 and numbers:  # a step has ended
                process.send_signal(numbers[0])
                numbers = numbers[1:]
    except OSError:  # Linux: the other side is closed
        pass
    os.close(ours)
    return process.wait(timeout=60), got


@pytest.mark.skipif(sys.platform != "linux", reason="reads a closed terminal as Linux does")
@pytest.mark.parametrize(
    "numbers",
    [
        (signal.SIGHUP,),
        pytest.param((signal.SIGQUIT,), marks=pytest.mark.fault),
        pytest.param((signal.SIGTERM, signal.SIGTERM), marks=pytest.mark.fault),
    ],
    ids=["SIGHUP", "SIGQUIT", "two-signals"],
)
def test_the_cursor_comes_back(tmp_path: Path, numbers: tuple[signal.Signals, ...]) -> None:
    status, got = on_a_terminal(tmp_path, *numbers)
    assert status == 128 + numbers[0]
    assert b"\x1b[?25l" in got
    assert got.rindex(b"\x1b[?25h") > got.rindex(b"\x1b[?25l")
    assert len(numbers) > 1 or list(tmp_path.rglob("checkpoints/*.safetensors"))
