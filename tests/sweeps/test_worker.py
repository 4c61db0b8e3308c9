"""The process of a run, when the process of its sweep ends or asks it to end."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers.archives import sketches
from helpers.paths import TOY

from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine.prepare import open_run
from rscl_bench.progress import silent
from rscl_bench.resolve import resolve_run
from rscl_bench.results.folders import run_folder
from rscl_bench.sweeps.worker import Job


def close_input(process: "subprocess.Popen[str]") -> None:
    """Close the worker's standard input, as the end of its parent does, even by SIGKILL."""
    assert process.stdin is not None
    process.stdin.close()


def close_output(process: "subprocess.Popen[str]") -> None:
    """Close the reader of the worker's events."""
    assert process.stdout is not None
    process.stdout.close()


def terminate(process: "subprocess.Popen[str]") -> None:
    """Ask the worker to end, as an interrupted sweep does."""
    process.terminate()


@pytest.mark.parametrize(
    ("ends", "status"),
    [
        (close_input, 128 + signal.SIGTERM),
        pytest.param(terminate, 128 + signal.SIGTERM, marks=pytest.mark.fault),
        pytest.param(close_output, 1, marks=pytest.mark.fault),
    ],
)
def test_a_worker_leaves_a_checkpoint(
    toy_data: Path,
    toy_cache: Path,
    tmp_path: Path,
    ends: Callable[["subprocess.Popen[str]"], None],
    status: int,
) -> None:
    overrides = {"training.epochs": 100000}
    spec = resolve_run(load_scenario(str(TOY)), load_method("finetune"), overrides=overrides)
    archives = sketches(toy_data, toy_cache)
    folder = run_folder(tmp_path, open_run(spec, archives, "cpu", silent).identity)
    folder.mkdir(parents=True)
    job = Job(spec=spec, archives=archives, device="cpu", threads=1, folder=folder)
    log = folder / "run.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "rscl_bench.sweeps.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(job.model_dump_json() + "\n")
    process.stdin.flush()
    for _ in range(2):  # the first event may come within the first step
        assert '"training task 1 first"' in process.stdout.readline()
    ends(process)
    assert process.wait(timeout=100) == status, log.read_text()
    process.stdout.close()
    process.stdin.close()
    assert len(list(folder.glob("checkpoints/*.safetensors"))) == 1
    assert status == 1 or "interrupted; the run resumes from step " in log.read_text()
