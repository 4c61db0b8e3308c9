"""Runs that end early, in one process: what they keep, and what is refused before they start."""

import json
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from helpers.archives import sketches
from helpers.runs import Quiet, Runner
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import rscl_bench.engine.run as run_module
from rscl_bench.engine.checkpointing import manager
from rscl_bench.engine.checkpointing.files import FOLDER
from rscl_bench.engine.checkpointing.manager import Checkpoints
from rscl_bench.engine.checkpointing.state import Snapshot
from rscl_bench.engine.memory import is_out_of_memory, memory_for
from rscl_bench.engine.prepare import open_run
from rscl_bench.engine.probing import OpenProbe
from rscl_bench.engine.recording import provenance_of
from rscl_bench.engine.run import execute
from rscl_bench.engine.run_lock import FILE, locked
from rscl_bench.errors import ArtefactError, RsclError, SpecError, TrainingError
from rscl_bench.progress import silent
from rscl_bench.results.folders import run_folder
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import task_key
from rscl_bench.spec import RunSpec
from rscl_bench.testing.tiny import differing


@pytest.fixture(scope="module")
def runs(toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(toy_data, toy_cache, tmp_path_factory.mktemp("runs"))


class Breaking(Quiet):
    """Raises in the progress of one step, as a closed pipe does."""

    def __init__(self, step: int):
        super().__init__()
        self.left = step

    def progress(self, what: str, done: int, total: int) -> None:
        super().progress(what, done, total)
        self.left -= 1
        if not self.left:
            raise BrokenPipeError


def folder_of(runs: Runner, out: Path, method: str = "cosmae") -> tuple[Any, Path]:
    opened = runs.open(runs.spec(method))
    return opened, run_folder(out, opened.identity)


def test_a_report_that_raises_leaves_a_checkpoint_of_its_step(runs: Runner, tmp_path: Path) -> None:
    whole = runs("cosmae")
    opened, folder = folder_of(runs, tmp_path)
    with pytest.raises(BrokenPipeError):
        execute(opened, folder, Breaking(7))  # step 3 of task 2
    assert not (folder / FILE).exists()
    said = Quiet()
    record = execute(opened, folder, said)
    assert said.lines[0] == "resuming after step 3 of task 2"
    assert record.scores == whole.record.scores
    assert not differing(whole.encoder, load_file(folder / "encoder.safetensors"))


def test_one_process_at_a_time_executes_a_run(runs: Runner, tmp_path: Path) -> None:
    opened, folder = folder_of(runs, tmp_path, "finetune")
    folder.mkdir(parents=True)
    (folder / ".record.json.0123.tmp").touch()  # of a process that was killed in a write
    with locked(folder):
        with pytest.raises(ArtefactError) as caught:
            execute(opened, folder, Quiet())
        assert str(caught.value) == (
            f"Another process executes this run in {folder}; wait until that process has ended, or "
            "give another --out."
        )
        assert list(folder.glob("*.json")) == []
    record = execute(opened, folder, Quiet())
    names = ["encoder", "losses", "record", "record", "state"]
    assert sorted(path.stem for path in folder.iterdir()) == names
    said = Quiet()
    assert execute(opened, folder, said) == record  # recorded in the meantime
    assert said.parts == []


def test_a_file_system_without_locks_gives_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_descriptor: int, _operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", refuse)
    with locked(tmp_path), locked(tmp_path):
        pass


def rewritten(folder: Path, change: Any) -> None:
    """Change the facts and tensors of the last checkpoint, and name the file by its new content."""
    path = max((folder / FOLDER).iterdir())
    with safe_open(path, framework="pt") as file:
        facts = json.loads(file.metadata()["rscl_bench"])
    tensors = load_file(path)
    change(facts, tensors)
    save_file(tensors, path, {"rscl_bench": json.dumps(facts)})
    number = path.name.partition("-")[0]
    path.rename(path.with_name(f"{number}-{sha256(path.read_bytes()).hexdigest()}.safetensors"))


@pytest.fixture(scope="module")
def interrupted(runs: Runner, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    opened, folder = folder_of(runs, tmp_path_factory.mktemp("interrupted"))
    with pytest.raises(BrokenPipeError):
        execute(opened, folder, Breaking(7))
    return opened, folder


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda facts, _: facts.pop("identity"), "is incomplete: field 'identity': Field required"),
        (lambda facts, _: facts.update(step="3"), "field 'step': Input should be a valid integer"),
        (lambda facts, _: facts.update(resumed=["{}"]), "is incomplete: field 'task'"),
        (
            lambda facts, _: facts.pop("steps_taken"),
            "fit its run (KeyError: 'steps_taken')",
        ),
        (lambda facts, _: facts.pop("peaks"), "does not fit its run (KeyError: 'peaks')"),
        (lambda _, tensors: tensors.pop("epoch_loss"), "does not fit its run (KeyError"),
        (
            lambda _, tensors: tensors.pop("objective.encoder.norm.weight", tensors.popitem()),
            "The checkpoint does not fit its run (",
        ),
    ],
)
def test_a_checkpoint_that_lacks_something_is_refused(
    interrupted: tuple[Any, Path], change: Any, sentence: str
) -> None:
    opened, folder = interrupted
    kept = {path: path.read_bytes() for path in (folder / FOLDER).iterdir()}
    rewritten(folder, change)
    try:
        with pytest.raises(ArtefactError) as caught:
            execute(opened, folder, Quiet())
    finally:
        for path in (folder / FOLDER).iterdir():
            path.unlink()
        for path, content in kept.items():
            path.write_bytes(content)
    assert sentence in str(caught.value)
    assert str(caught.value).endswith("start over with --force.")


def test_a_changed_machine_is_noted(interrupted: tuple[Any, Path], runs: Runner) -> None:
    opened, folder = interrupted

    def other(facts: dict[str, Any], _tensors: Any) -> None:
        facts["environment"] |= {"processor": "Other CPU", "cpu_capability": "Z", "GDAL": "1.0"}

    rewritten(folder, other)
    said = Quiet()
    record = execute(opened, folder, said)
    (resumed,) = record.provenance.resumed
    now = record.provenance
    assert resumed.changed == (
        f"GDAL: 1.0 before, {now.versions['GDAL']} now",
        f"cpu_capability: Z before, {now.cpu_capability} now",
        f"processor: Other CPU before, {now.processor} now",
    )
    assert f"note: the last bits of results may differ, since {resumed.changed[0]}" in said.lines


def test_checkpoints_take_two_percent_of_the_time_at_most(
    runs: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, seconds_of_a_write = 1000.0, 0.0

    def state() -> Snapshot:
        nonlocal now
        now += seconds_of_a_write
        return Snapshot({}, {})

    monkeypatch.setattr(manager, "time", SimpleNamespace(monotonic=lambda: now))
    opened = runs.open(runs.spec("finetune"))
    provenance = provenance_of(opened.device, datetime.now(UTC))
    checkpoints = Checkpoints(
        tmp_path, opened.identity, {}, provenance, 60.0, state, lambda _: None, enabled=True
    )
    assert not checkpoints.wanted()
    now += 60
    assert checkpoints.wanted()
    checkpoints.write()
    now += 59
    assert not checkpoints.wanted()
    now += 1
    assert checkpoints.wanted()
    seconds_of_a_write = 6.0
    checkpoints.write()
    now += 299
    assert not checkpoints.wanted()
    now += 1
    assert checkpoints.wanted()  # 6 s are 2 % of 300 s
    checkpoints.interruption.signal = 15
    now -= 300
    assert checkpoints.wanted()


# Refused before the first step


class Unopened:
    """Archives that no test may open."""

    edition = "sketch"

    def open(self, *_: Any) -> None:
        raise AssertionError("packed before the check")


@pytest.mark.parametrize("name", ["../../evil", "a b", ""])
def test_a_name_that_no_record_can_hold_is_refused_before_packing(runs: Runner, name: str) -> None:
    spec = runs.spec("finetune").model_copy(update={"protocol_name": name})
    with pytest.raises(SpecError, match="cannot be recorded: field 'protocol_name'"):
        open_run(spec, Unopened(), "cpu", silent)  # type: ignore[arg-type]


def test_a_version_that_no_record_can_hold_is_refused_before_packing(runs: Runner) -> None:
    spec = runs.spec("finetune")
    scenario = spec.scenario.model_copy(update={"version": "../1"})
    with pytest.raises(SpecError, match="cannot be recorded: field 'version'"):
        open_run(spec.model_copy(update={"scenario": scenario}), Unopened(), "cpu", silent)  # type: ignore[arg-type]


def test_a_skipped_path_that_is_not_utf_8_leaves_a_readable_record(
    runs: Runner, tmp_path: Path
) -> None:
    opened, folder = folder_of(runs, tmp_path, "finetune")
    object.__setattr__(opened.stores[0], "skipped", ("a\udcff.jpg",))
    record = execute(opened, folder, Quiet())
    assert read_record(folder / "record.json") == record
    assert record.skipped[task_key("first")] == ("a\\udcff.jpg",)


def test_memory_that_runs_out_while_the_objective_is_built(
    runs: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(_spec: RunSpec, _device: torch.device) -> None:
        torch.empty(1 << 55)  # 128 PiB

    monkeypatch.setattr(run_module, "build_objective", build)
    opened, folder = folder_of(runs, tmp_path, "finetune")
    with pytest.raises(TrainingError) as caught:
        execute(opened, folder, Quiet())
    assert str(caught.value) == (
        "There is not enough memory to build the objective; use a smaller backbone or smaller "
        "heads."
    )


@pytest.mark.parametrize("size", [(1 << 55,), (1 << 62, 4), (1 << 40, 1 << 40)])
def test_every_size_that_torch_cannot_allocate_is_out_of_memory(size: tuple[int, ...]) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(size)
    assert is_out_of_memory(caught.value)
    with pytest.raises(RuntimeError, match="another"), memory_for("here", "mend"):
        raise RuntimeError("another")


def test_features_that_are_not_finite_stop_the_run(
    runs: Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = runs.open(runs.spec("finetune"))
    (probe,) = opened.probes

    class Diverged:
        def features(self, tiles: Any, _context: Any) -> Any:
            return np.full((len(tiles.indices), 4), np.nan, np.float32)

    with pytest.raises(RsclError, match="features of probe 'toy' are not finite"):
        OpenProbe.evaluate(probe, Diverged(), opened.spec.protocol, opened.device)  # type: ignore[arg-type]


def test_archives_are_opened_after_the_checks(runs: Runner) -> None:
    with pytest.raises(AssertionError, match="packed before the check"):
        open_run(runs.spec("finetune"), Unopened(), "cpu", silent)  # type: ignore[arg-type]
    assert sketches(runs.data, runs.cache).edition == Unopened.edition
