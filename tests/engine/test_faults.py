"""Runs that are really killed, and what is left of them: `pytest -m fault` for the full counts."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import START, call
from helpers.cli import spawn as start
from helpers.paths import TOY
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from rscl_bench.interruption import SIGNALS

#: With a memory, a Fisher term, a mixture, a teacher with a head, a mixed teacher, and with a queue
#: and a moving average.
METHODS = {
    "er": (),
    "ewc": (),
    "lump": (),
    "pfr": (),
    "cosmae": (),
    "moco-v2": ("objective.hidden_dim=16", "objective.output_dim=8", "objective.queue=20"),
}
EPOCHS = "training.epochs=6"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.getbasetemp() / "fault-cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(folder))
        patch.delenv("RSCL_DATA_ROOT", raising=False)
        yield folder


def arguments(out: Path, method: str, *more: str) -> list[str]:
    changes = [text for change in (EPOCHS, *METHODS[method]) for text in ("--set", change)]
    fixed = ["--scenario", str(TOY), "--method", method, "--out", str(out), "--device", "cpu"]
    return ["run", *fixed, *changes, "--checkpoint-minutes", "0", *more]


def spawn(cache: Path, out: Path, method: str, *more: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "RSCL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return start(*arguments(out, method, *more), env=environment)


def outcome(out: Path) -> dict[str, Any]:
    """Return the part of a record and its files that no interruption may change."""
    (path,) = out.rglob("record.json")
    record = json.loads(path.read_text())
    files = ("encoder.safetensors", "record.safetensors")
    tasks = [{k: t[k] for k in ("name", "tiles", "steps", "final_loss")} for t in record["tasks"]]
    kept = ("id", "identity", "scores", "pixel_statistics", "continual", "spread", "flops")
    return {
        **{name: record[name] for name in kept},
        **{name: sha256((path.parent / name).read_bytes()).hexdigest() for name in files},
        "tasks": tasks,
    }


def resumed(out: Path) -> list[dict[str, Any]]:
    (path,) = out.rglob("record.json")
    found: list[dict[str, Any]] = json.loads(path.read_text())["provenance"]["resumed"]
    return found


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the outcome and the duration of an uninterrupted run of a method; each runs once."""
    known: dict[str, tuple[dict[str, Any], float]] = {}

    def get(method: str) -> tuple[dict[str, Any], float]:
        if method not in known:
            out = tmp_path_factory.mktemp(f"whole-{method}")
            started = time.monotonic()
            process = spawn(cache, out, method)
            _, err = process.communicate()
            assert process.returncode == 0, err
            known[method] = outcome(out), time.monotonic() - started
            assert resumed(out) == []
            assert not list(out.rglob("checkpoints"))
        return known[method]

    return get


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGTERM,
        pytest.param(signal.SIGINT, marks=pytest.mark.fault),
        pytest.param(signal.SIGUSR1, marks=pytest.mark.fault),
        pytest.param(signal.SIGHUP, marks=pytest.mark.fault),
        pytest.param(signal.SIGQUIT, marks=pytest.mark.fault),
    ],
)
def test_signal_ends_a_run_that_then_resumes(
    cache: Path, whole: Any, tmp_path: Path, number: signal.Signals
) -> None:
    expected, _ = whole("cosmae")
    process = spawn(cache, tmp_path, "cosmae")
    wait_for_checkpoint(process, tmp_path, 3)
    process.send_signal(number)
    started = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - started < 30  # a step, a checkpoint, and the end of the process
    assert process.returncode == 128 + number
    last = err.splitlines()[-1]
    found = re.fullmatch(
        rf"interrupted by {number.name}; the same command resumes from step (\d+) of task (\d)",
        last,
    )
    assert found, last
    process = spawn(cache, tmp_path, "cosmae")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"resuming after step {found[1]} of task {found[2]}" in out.splitlines()
    assert outcome(tmp_path) == expected
    assert resumed(tmp_path) == [{"task": int(found[2]) - 1, "step": int(found[1]), "changed": []}]
    assert not list(tmp_path.rglob("checkpoints"))


def wait_for_checkpoint(process: subprocess.Popen[str], out: Path, number: int) -> None:
    while not [
        p for p in out.rglob("checkpoints/*.safetensors") if int(p.name.split("-")[0]) >= number
    ]:
        assert process.poll() is None
        time.sleep(0.01)


def kill_and_resume(cache: Path, whole: Any, out: Path, method: str, kills: int, seed: int) -> int:
    """Kill a run at random moments, until the number of kills is reached or the run has ended."""
    expected, seconds = whole(method)
    rng = random.Random(seed)
    done = 0
    while True:
        process = spawn(cache, out, method)
        try:
            # Start-up takes more than half of a toy run; most kills are to come after it.
            limit = rng.uniform(0.4, 1.0) * seconds if done < kills else None
            _, err = process.communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            done += 1
            continue
        assert process.returncode == 0, err
        break
    assert outcome(out) == expected
    return done


def test_run_killed_twice_ends_in_the_same_bits(cache: Path, whole: Any, tmp_path: Path) -> None:
    expected, _ = whole("cosmae")
    for number in (5, 20):  # a time would be another moment on a busier machine
        process = spawn(cache, tmp_path, "cosmae")
        wait_for_checkpoint(process, tmp_path, number)
        process.kill()
        process.communicate()
    process = spawn(cache, tmp_path, "cosmae")
    _, err = process.communicate()
    assert process.returncode == 0, err
    assert outcome(tmp_path) == expected
    assert len(resumed(tmp_path)) == 2


@pytest.mark.fault
@pytest.mark.parametrize("method", METHODS)
def test_many_kills(cache: Path, whole: Any, tmp_path: Path, method: str) -> None:
    """17 kills of each of six methods, 102 in total; a run that ends early is repeated."""
    done, number = 0, 0
    while done < 17:
        done += kill_and_resume(
            cache, whole, tmp_path / str(number), method, min(4, 17 - done), seed=100 + number
        )
        number += 1
    assert done == 17


def first_part(cache: Path, out: Path, method: str = "cosmae") -> Path:
    """Interrupt a run and return the folder of its checkpoints."""
    process = spawn(cache, out, method)
    wait_for_checkpoint(process, out, 4)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    (folder,) = out.rglob("checkpoints")
    return folder


def test_damaged_checkpoint_is_skipped(cache: Path, whole: Any, tmp_path: Path) -> None:
    expected, _ = whole("cosmae")
    folder = first_part(cache, tmp_path)
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes()[:-100])
    process = spawn(cache, tmp_path, "cosmae")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert f"{last} is damaged: its SHA-256 differs from its name; skipped" in out
    assert outcome(tmp_path) == expected


def edited(path: Path, change: Any) -> None:
    """Rewrite a checkpoint with changed metadata, under the name of its new content."""
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["rscl_bench"])
    change(facts)
    tensors = load_file(path)
    save_file(tensors, path, {"rscl_bench": json.dumps(facts)})
    digest = sha256(path.read_bytes()).hexdigest()
    path.rename(path.with_name(f"{path.name[:6]}-{digest}.safetensors"))


def test_checkpoint_of_another_run_and_another_machine(
    cache: Path, whole: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(cache))
    folder = first_part(cache, tmp_path)

    def other_data(facts: dict[str, Any]) -> None:
        facts["identity"]["data"]["tasks.second"] = "0" * 64

    last = max(folder.iterdir())
    kept = last.read_bytes(), last.name
    edited(last, other_data)
    result = call(*arguments(tmp_path, "cosmae"))
    assert result.exit_code == 1
    assert "is of another run: 'identity.data.tasks.second' differs" in result.output
    max(folder.iterdir()).unlink()
    (folder / kept[1]).write_bytes(kept[0])

    def other_decoder(facts: dict[str, Any]) -> None:
        facts["pixels"]["tasks.second"] = "0" * 64

    edited(folder / kept[1], other_decoder)
    result = call(*arguments(tmp_path, "cosmae"))
    assert result.exit_code == 1
    assert "is of other pixels: 'tiles.tasks.second' differs" in result.output
    max(folder.iterdir()).unlink()
    (folder / kept[1]).write_bytes(kept[0])

    def other_machine(facts: dict[str, Any]) -> None:
        facts["environment"]["threads"] = "7"

    edited(folder / kept[1], other_machine)
    process = spawn(cache, tmp_path, "cosmae")
    out, err = process.communicate()
    assert process.returncode == 0, err
    changed = "threads: 7 before, 1 now"
    assert f"note: the last bits of results may differ, since {changed}" in out
    assert [one["changed"] for one in resumed(tmp_path)] == [[changed]]


def test_interrupted_run_with_changed_tiles_does_not_start_over_silently(
    cache: Path, tmp_path: Path, toy_data: Path
) -> None:
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    given = ("--data-root", str(data))
    process = spawn(cache, tmp_path / "runs", "cosmae", *given)
    wait_for_checkpoint(process, tmp_path / "runs", 2)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    (interrupted,) = (tmp_path / "runs").rglob("checkpoints")
    path = data / "toy" / "train" / "000.png"
    Image.open(path).transpose(Image.Transpose.ROTATE_90).save(path)
    process = spawn(cache, tmp_path / "runs", "cosmae", *given)
    _, err = process.communicate()
    assert process.returncode == 1
    assert (
        f"was interrupted in {interrupted.parent} and cannot resume, because 'identity.data." in err
    )
    process = spawn(cache, tmp_path / "runs", "cosmae", *given, "--force")
    _, err = process.communicate()
    assert process.returncode == 0, err


def test_force_starts_over(cache: Path, whole: Any, tmp_path: Path) -> None:
    expected, _ = whole("cosmae")
    first_part(cache, tmp_path)
    process = spawn(cache, tmp_path, "cosmae", "--force")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert "going on" not in out
    assert resumed(tmp_path) == []
    assert outcome(tmp_path) == expected


#: Runs the command line, and dies at the n-th call of a function, before or after it did its work.
DIE = """
import functools, importlib, os, signal, sys
module, _, path = sys.argv[1].partition(":")
call, when = int(sys.argv[2]), sys.argv[3]
*owners, name = path.split(".")
owner = functools.reduce(getattr, owners, importlib.import_module(module))
function, calls = getattr(owner, name), [0]

def dies(*args, **kwargs):
    calls[0] += 1
    if calls[0] == call and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    result = function(*args, **kwargs)
    if calls[0] == call:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

setattr(owner, name, dies)
sys.argv[1:] = sys.argv[4:]
from rscl_bench.cli import main
main()
"""
PLACES = {
    "in a step": ("torch.optim:AdamW.step", 20, "before"),
    "between update and teacher": ("torch.optim:AdamW.step", 21, "after"),
    "while the buffer is updated": ("rscl_bench.strategies.buffer:TileBuffer.add", 2, "after"),
    "while a task is concluded": (
        "rscl_bench.strategies.distillation:Distillation.after_training_exp",
        2,
        "before",
    ),
    "while probing": ("rscl_bench.engine.probing:OpenProbe.evaluate", 3, "before"),
    "in a checkpoint write, before its name": ("pathlib:Path.replace", 15, "before"),
    "in a checkpoint write, before the old one goes": ("pathlib:Path.unlink", 20, "before"),
    "while the record is written": ("rscl_bench.results.record:write_record", 1, "before"),
    "after the record is written": ("rscl_bench.results.record:write_record", 1, "after"),
}


def check_death(cache: Path, whole: Any, out: Path, place: str) -> None:
    expected, _ = whole("cosmae")
    target, call_number, when = PLACES[place]
    process = subprocess.run(
        [sys.executable, "-c", DIE, target, str(call_number), when, *arguments(out, "cosmae")],
        capture_output=True,
        env={**os.environ, "RSCL_CACHE": str(cache), "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert process.returncode == -signal.SIGKILL, process.stderr
    again = spawn(cache, out, "cosmae")
    _, err = again.communicate()
    assert again.returncode == 0, err
    assert outcome(out) == expected
    assert not list(out.rglob("checkpoints"))
    assert not list(out.rglob("*.tmp"))


def test_death_in_a_checkpoint_write(cache: Path, whole: Any, tmp_path: Path) -> None:
    check_death(cache, whole, tmp_path, "in a checkpoint write, before its name")


@pytest.mark.fault
@pytest.mark.parametrize("place", PLACES)
def test_death_at_every_place(cache: Path, whole: Any, tmp_path: Path, place: str) -> None:
    check_death(cache, whole, tmp_path, place)


@pytest.mark.fault
def test_the_same_command_twice_at_once(cache: Path, whole: Any, tmp_path: Path) -> None:
    expected, _ = whole("cosmae")
    first, second = (spawn(cache, tmp_path, "cosmae") for _ in range(2))
    errors = {process: process.communicate()[1] for process in (first, second)}
    codes = sorted(process.returncode for process in errors)
    assert codes in ([0, 0], [0, 1]), errors  # one that starts late finds the record
    for process, err in errors.items():
        sentence = "error: Another process executes this run in "
        assert process.returncode == 0 or sentence in err, err
    assert outcome(tmp_path) == expected
    assert not list(tmp_path.rglob("run.lock"))


@pytest.mark.fault
@pytest.mark.parametrize("number", SIGNALS)
def test_interrupted_sweep_leaves_checkpoints(
    cache: Path, tmp_path: Path, number: signal.Signals
) -> None:
    given = ["sweep", "--scenario", str(TOY), "--methods", "finetune,cosmae", "--seeds", "0"]
    given += ["--device", "cpu", "--jobs", "2", "--set", "training.epochs=400", "--out"]
    environment = {**os.environ, "RSCL_CACHE": str(cache)}
    command = [sys.executable, "-c", START, *given]
    process = subprocess.Popen(
        [*command, str(tmp_path / "runs")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    # Of both runs, so that neither has ended, whether it trains or probes just then.
    while len({path.parent for path in (tmp_path / "runs").rglob("checkpoints/*")}) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=90)
    assert process.returncode == 128 + number, err
    assert "resumes the other runs from their checkpoints" in err
    logs = [path.read_text() for path in (tmp_path / "runs").rglob("run.log")]
    assert ["interrupted; the run resumes from" in text for text in logs] == [True, True]
    assert f"interrupted by {number.name}; " in err
    for out in ("runs", "fresh"):
        done = subprocess.run([*command, str(tmp_path / out)], env=environment, check=False)
        assert done.returncode == 0
    for method in ("finetune", "cosmae"):
        pair = [
            outcome(tmp_path / out / "toy-sketch" / "tiny" / method) for out in ("runs", "fresh")
        ]
        assert pair[0] == pair[1]
