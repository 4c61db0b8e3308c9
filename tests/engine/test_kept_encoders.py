"""The encoders after every task."""

from hashlib import sha256
from pathlib import Path

import pytest
import torch
from helpers.runs import Quiet, Run, Runner

from rscl_bench.engine.run import execute
from rscl_bench.errors import ArtefactError
from rscl_bench.interruption import Interrupted
from rscl_bench.models.encoder_file import read_encoder
from rscl_bench.results.folders import run_folder
from rscl_bench.results.record import make_record, read_record
from rscl_bench.testing.tiny import differing, state_of

NAMES = ["1-first.safetensors", "2-second.safetensors", "3-third.safetensors"]


@pytest.fixture(scope="module")
def runner(toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(toy_data, toy_cache, tmp_path_factory.mktemp("runs"))


class StopsInTask(Quiet):
    """Interrupts a run in a task."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number

    def progress(self, what: str, done: int, total: int) -> None:
        if what.startswith(f"training task {self.number}") and done == total:
            raise Interrupted(15)


def kept(runner: Runner, out: Path, reporter: Quiet | None = None, force: bool = False) -> Run:
    opened = runner.open(runner.spec("finetune"))
    folder, reports = run_folder(out, opened.identity), reporter or Quiet()
    record = execute(opened, folder, reports, keep_encoders=True, force=force)
    return Run(opened, folder, record, reports)


@pytest.fixture(scope="module")
def run(runner: Runner, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return kept(runner, tmp_path_factory.mktemp("kept"))


def test_encoders_are_named_by_task_and_described(run: Run) -> None:
    folder = run.folder / "encoders"
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    for number, name in enumerate(NAMES, start=1):
        _, description = read_encoder(folder / name)
        assert description.task is not None
        assert (description.task.number, description.task.of) == (number, 3)
        assert f"{number}-{description.task.name}.safetensors" == name
        assert len(description.inputs) == number
    last = (folder / NAMES[-1]).read_bytes()
    assert last == (run.folder / "encoder.safetensors").read_bytes()


def test_encoders_differ_from_task_to_task(run: Run) -> None:
    states = [state_of(read_encoder(run.folder / "encoders" / name)[0]) for name in NAMES]
    assert differing(states[0], states[1])
    assert differing(states[1], states[2])


def test_record_has_their_digests_and_equal_numbers(run: Run, runner: Runner) -> None:
    """Keeping encoders is no part of the identity, and changes no number."""
    files = {n.partition("-")[2].partition(".")[0]: run.folder / "encoders" / n for n in NAMES}
    digests = {task: sha256(path.read_bytes()).hexdigest() for task, path in files.items()}
    assert run.record.task_encoders == digests
    assert read_record(run.folder / "record.json") == run.record
    plain = runner("finetune")
    assert not (plain.folder / "encoders").exists()
    assert "task_encoders" not in (plain.folder / "record.json").read_text(encoding="utf-8")
    assert plain.record.id == run.record.id
    assert plain.record.scores == run.record.scores
    assert plain.record.encoder_digest == run.record.encoder_digest


def test_an_interrupted_run_ends_with_the_same_encoders(
    run: Run, runner: Runner, tmp_path: Path
) -> None:
    with pytest.raises(Interrupted):
        kept(runner, tmp_path, StopsInTask(2))
    again = kept(runner, tmp_path)
    assert again.record.provenance.resumed
    assert again.record.task_encoders == run.record.task_encoders


def test_a_run_without_them_removes_those_of_an_earlier_run(runner: Runner, tmp_path: Path) -> None:
    first = kept(runner, tmp_path)
    assert (first.folder / "encoders").is_dir()
    record = execute(first.opened, first.folder, Quiet(), force=True)
    assert record.task_encoders == {}
    assert not (first.folder / "encoders").exists()


def test_digests_of_unknown_tasks_are_refused(run: Run) -> None:
    record = run.record
    names = type(record).model_fields.keys() - {"format", "id", "continual"}
    fields = {name: getattr(record, name) for name in names}
    fields["task_encoders"] = {"fourth": "0" * 64}
    with pytest.raises(ArtefactError, match=r"'task_encoders\.fourth' is of no task"):
        make_record(**fields)


def test_weights_of_the_last_task_are_those_of_the_run(run: Run) -> None:
    encoder, _ = read_encoder(run.folder / "encoders" / NAMES[-1])
    for name, value in state_of(encoder).items():
        assert torch.equal(value, run.encoder[name])
