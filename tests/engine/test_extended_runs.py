"""Finished runs that go on: extended task by task, they are the stream that is run in one go."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.archives import sketches
from helpers.paths import ADAPTERS, TOY
from helpers.runs import Quiet, Runner
from helpers.small import SMALL
from safetensors.torch import load_file, save_file

import rscl_bench
from rscl_bench import registry
from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine import parent as parent_module
from rscl_bench.engine.extending import check_plugins, extended_spec, longer_scenario
from rscl_bench.engine.parent import read_parent
from rscl_bench.engine.prepare import PreparedRun, open_run
from rscl_bench.engine.run import execute
from rscl_bench.engine.state_file import FILE
from rscl_bench.errors import ArchiveError, ArtefactError, SpecError, TrainingError
from rscl_bench.progress import silent
from rscl_bench.results.folders import run_folder
from rscl_bench.results.image_scores import read_image_scores
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.results.validation import verdicts
from rscl_bench.spec import Scenario
from rscl_bench.testing.tiny import differing

ONE_GO = load_scenario(str(TOY))
AVERAGED = ("ema", "weight-averaging", "constant-anneal")
SLOW = ("finetune", "der", "si", "pfr", "cassle-mae", "tec", "dino", *AVERAGED)
METHODS = ["cosmae", "er", "ewc", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


def shortened(tasks: int) -> Scenario:
    return ONE_GO.model_copy(update={"tasks": ONE_GO.tasks[:tasks]})


class Extender:
    """Runs the toy scenario's first task, and extends runs by its later tasks."""

    def __init__(self, runs: Runner, data: Path):
        self.runs, self.data = runs, data

    def opened(
        self, run: Path, scenario: Scenario = ONE_GO, data: Path | None = None
    ) -> PreparedRun:
        parent = read_parent(run)
        method = load_method(str(parent.record.identity.method["name"]))
        spec = extended_spec(parent, scenario, method)
        archives = sketches(self.data if data is None else data, self.runs.cache)
        return open_run(spec, archives, "cpu", silent, parent)

    def first(self, method: str, tasks: int, out: Path, *assignments: str) -> Path:
        """Return the folder of a run of the first tasks."""
        spec = self.runs.spec(method, 0, *assignments, tasks=ONE_GO.tasks[:tasks])
        return self.runs.fresh(spec, out).folder

    def extended(self, run: Path, out: Path, scenario: Scenario = ONE_GO) -> Path:
        """Return the folder of an extended run."""
        opened = self.opened(run, scenario)
        folder = run_folder(out, opened.identity)
        execute(opened, folder, Quiet())
        return folder


@pytest.fixture(scope="module")
def runs(toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(toy_data, toy_cache, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def extender(runs: Runner, toy_data: Path) -> Extender:
    return Extender(runs, toy_data)


@pytest.fixture(scope="module")
def er(extender: Extender, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of two tasks with a memory."""
    return extender.first("er", 2, tmp_path_factory.mktemp("er"))


@pytest.fixture
def copy(er: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(er, tmp_path / "copy"))


def trained(record: RunRecord) -> list[Any]:
    return [(task.name, task.tiles, task.steps, task.final_loss) for task in record.tasks]


@pytest.mark.parametrize("method", METHODS)
def test_extended_task_by_task_equals_one_go(
    method: str, extender: Extender, runs: Runner, tmp_path: Path
) -> None:
    small = SMALL[method] if method in ("dino", "tec") else {}
    settings = [f"objective.{key}={value}" for key, value in small.items()]
    whole = runs(method, 0, *settings)
    one = extender.first(method, 1, tmp_path / "1", *settings)
    two = extender.extended(one, tmp_path / "2", shortened(2))
    three = extender.extended(two, tmp_path / "3")
    assert not differing(whole.encoder, load_file(three / "encoder.safetensors"))
    last, state = load_file(whole.folder / FILE), load_file(three / FILE)
    assert not differing(last, state)
    record, expected = read_record(three / "record.json"), whole.record
    assert record.scores == expected.scores
    assert record.spread == expected.spread
    assert record.continual == expected.continual
    assert trained(record) == trained(expected)
    assert record.parameters == expected.parameters
    assert record.flops == expected.flops
    images = read_image_scores(three / "record.json", record)
    wanted = read_image_scores(whole.folder / "record.json", expected)
    assert images is not None
    assert wanted is not None
    assert images.run != wanted.run  # and nothing else differs
    assert replace(images, run=None).to_bytes() == replace(wanted, run=None).to_bytes()
    assert record.unprobed == {}


def test_record_names_its_parent_by_digest(extender: Extender, er: Path, tmp_path: Path) -> None:
    folder = extender.extended(er, tmp_path)
    before, record = read_record(er / "record.json"), read_record(folder / "record.json")
    parent = record.identity.parent
    assert parent is not None
    assert (parent.run, parent.state, parent.tasks) == (before.id, before.state_digest, 2)
    assert record.parent is not None
    assert record.parent.changed == ()
    assert record.seconds.total > record.parent.seconds == before.seconds.total
    assert record.id != before.id
    assert record.tasks[0].train_seconds == before.tasks[0].train_seconds
    assert verdicts([folder / "record.json"])[folder / "record.json"].state == "valid"


def test_equal_runs_keep_equal_states(extender: Extender, er: Path, tmp_path: Path) -> None:
    again = extender.first("er", 2, tmp_path)
    assert (again / FILE).read_bytes() == (er / FILE).read_bytes()


def test_the_state_holds_the_memory_and_no_other_image(er: Path) -> None:
    stores = read_parent(er).stores()
    assert [len(store) for store in stores] == [20, 20]
    tensors = load_file(er / FILE)
    assert [len(tensors[f"tiles.{task}.pixels"]) for task in range(2)] == [6, 6]  # buffer_size 12
    held = set(tensors["tiles.0.indices"].tolist())
    absent = next(number for number in range(20) if number not in held)
    with pytest.raises(TrainingError, match=rf"Tile {absent} of task 'first' is not in the kept"):
        stores[0].tiles[torch.tensor([absent]).numpy()]


def later_toml(folder: Path) -> Path:
    """Write a scenario that goes on with an archive of its own, and probes its domain."""
    code = ADAPTERS.read_text(encoding="utf-8")
    (folder / "adapters.py").write_text(code, encoding="utf-8")
    later = code.replace('name = "toy"', 'name = "later"').replace(
        'folder = "toy"', 'folder = "later"'
    )
    (folder / "later.py").write_text(later, encoding="utf-8")
    text = TOY.read_text(encoding="utf-8")
    head, _, rest = text.partition('[[tasks]]\nname = "third"')
    probe = (
        '[[probes]]\nname = "later"\ntask = "later"\ndataset = "later.py:Toy"\ntile_size = 24\n'
        'val_split = "val"\nparameters = { k = 3 }\n\n'
    )
    task = (
        '[[tasks]]\nname = "later"\ndataset = "later.py:Toy"\nsplit = "train"\ntile_size = 24\n\n'
    )
    rest = rest.partition("[[probes]]")[2]
    path = folder / "longer.toml"
    path.write_text(
        f"{head}{task}[[probes]]{rest}".replace("[protocols.tiny]", f"{probe}[protocols.tiny]"),
        encoding="utf-8",
    )
    return path


@pytest.fixture
def gone(extender: Extender, er: Path, tmp_path: Path) -> tuple[PreparedRun, Path]:
    """A run that goes on with a new archive, where the earlier archive is gone."""
    scenario = load_scenario(str(later_toml(tmp_path)))
    root = tmp_path / "data"
    later = registry.load("datasets", scenario.tasks[2].dataset)
    later.write_sketch(root, np.random.default_rng(0))
    assert not (root / "toy").exists()
    opened = extender.opened(er, scenario, root)
    return opened, run_folder(tmp_path / "out", opened.identity)


def test_earlier_archives_may_be_gone(gone: tuple[PreparedRun, Path], er: Path) -> None:
    opened, folder = gone
    said = Quiet()
    record = execute(opened, folder, said)
    before = read_record(er / "record.json")
    assert record.unprobed == {"toy": (3,), "later": (1,)}
    for row in range(3):
        assert record.scores[row]["toy"] == before.scores[row]["toy"]
    absent = record.scores[3]["toy"]
    assert absent.test.micro is None
    assert absent.val is not None
    assert absent.val.micro is None
    for row in (0, 2, 3):  # before training, at the end of the parent, after the new task
        assert record.scores[row]["later"].test.micro is not None
    forward = record.continual.micro.forward_transfer
    scores = [record.scores[row]["later"].test.micro for row in (0, 2)]
    assert forward == pytest.approx(scores[1] - scores[0])  # type: ignore[operator]
    assert record.continual.micro.forgetting is None
    assert verdicts([folder / "record.json"])[folder / "record.json"].state == "valid"
    assert set(record.identity.data) == {
        *(f"tasks.{task}" for task in ("first", "second", "later")),
        *(
            f"probes.{probe}.{role}"
            for probe in ("toy", "later")
            for role in ("train", "val", "test")
        ),
    }
    assert "later micro-mAP" in said.lines[-1]
    assert "toy micro-mAP" not in said.lines[-1]


def test_interrupted_extension_resumes_to_the_same_bits(
    gone: tuple[PreparedRun, Path], tmp_path: Path
) -> None:
    class Breaking(Quiet):
        def progress(self, what: str, done: int, total: int) -> None:
            super().progress(what, done, total)
            if what.startswith("training task 3") and done == 2:
                raise BrokenPipeError

    opened, folder = gone
    whole = execute(opened, tmp_path / "whole", Quiet())
    with pytest.raises(BrokenPipeError):
        execute(opened, folder, Breaking())
    said = Quiet()
    record = execute(opened, folder, said)
    assert "resuming after step 2 of task 3" in said.lines
    assert record.scores == whole.scores
    assert record.unprobed == whole.unprobed
    assert record.state_digest == whole.state_digest
    assert record.encoder_digest == whole.encoder_digest
    assert record.image_scores_digest == whole.image_scores_digest


def test_changed_archive_of_a_probe_is_refused(
    extender: Extender, er: Path, toy_data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "changed"
    shutil.copytree(toy_data, root)
    (root / "toy" / SKETCH_MARKER).unlink()
    shutil.copy(root / "toy" / "test" / "000.png", root / "toy" / "test" / "001.png")
    with pytest.raises(ArchiveError, match=r"archive of 'probes\.toy\.test' has changed since"):
        extender.opened(er, data=root)


def test_only_small_states_are_kept_unasked(
    runs: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rscl_bench.engine.run.SMALL", 1000)
    opened, said = runs.open(runs.spec()), Quiet()
    record = execute(opened, tmp_path, said)
    assert record.state_digest is None
    assert not (tmp_path / FILE).exists()
    assert "with --keep-state it is" in said.lines[-1]
    with pytest.raises(ArtefactError, match="kept no state to go on from"):
        read_parent(tmp_path)
    record = execute(opened, tmp_path, said, force=True, keep_state=True)
    assert read_parent(tmp_path).state.digest == record.state_digest
    record = execute(opened, tmp_path, said, force=True, keep_state=False)
    assert not (tmp_path / FILE).exists()


# What cannot be extended.


def refused(error: type[Exception], run: Path, longer: Mapping[str, Any] | Scenario) -> str:
    def prepare() -> None:
        parent = read_parent(run)
        scenario = longer if isinstance(longer, Scenario) else None
        task = {} if isinstance(longer, Scenario) else longer
        extended_spec(parent, longer_scenario(parent, scenario, task), load_method("er"))

    with pytest.raises(error) as caught:
        prepare()
    return str(caught.value)


def test_state_that_changed_is_refused(copy: Path) -> None:
    state = load_file(copy / FILE)
    state["tiles.0.mean"] += 1e-9
    save_file(state, copy / FILE)
    assert "damaged or holds no state of a run" in refused(ArtefactError, copy, ONE_GO)
    (copy / FILE).write_bytes(b"")
    assert "damaged or holds no state of a run" in refused(ArtefactError, copy, ONE_GO)
    (copy / FILE).unlink()
    assert "cannot be read (No such file or directory)" in refused(ArtefactError, copy, ONE_GO)


def test_state_of_another_run_is_refused(extender: Extender, copy: Path, tmp_path: Path) -> None:
    other = extender.first("er", 1, tmp_path)
    shutil.copy(other / FILE, copy / FILE)
    assert "is not the state of its run" in refused(ArtefactError, copy, ONE_GO)


def test_run_without_image_scores_is_refused(copy: Path) -> None:
    (copy / "record.safetensors").unlink()
    assert "record.safetensors is missing" in refused(ArtefactError, copy, ONE_GO)


def test_run_of_another_version_is_refused(er: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rscl_bench, "__version__", "99.0")
    message = refused(SpecError, er, ONE_GO)
    assert "and this is 99.0, which may train differently" in message


def test_other_precision_or_edition_is_refused(
    er: Path, extender: Extender, monkeypatch: pytest.MonkeyPatch
) -> None:
    archives = sketches(extender.data, extender.runs.cache).model_copy(update={"edition": "real"})
    parent = read_parent(er)
    spec = extended_spec(parent, ONE_GO, load_method("er"))
    with pytest.raises(SpecError, match=r"trained on the sketch edition.*leave the data root out"):
        open_run(spec, archives, "cpu", silent, parent)
    opened = extender.opened(er)
    identity = parent.record.identity.model_copy(update={"precision": "bf16"})
    record = parent.record.model_copy(update={"identity": identity})
    other = parent_module.ParentRun(
        parent.path, record, parent.record_digest, parent.images, parent.state
    )
    with pytest.raises(SpecError, match=r"was trained in bf16, and .* computes in fp32"):
        open_run(opened.spec, sketches(extender.data, extender.runs.cache), "cpu", silent, other)


def test_joint_training_cannot_go_on(extender: Extender, tmp_path: Path) -> None:
    folder = extender.first("joint", 2, tmp_path)
    assert not (folder / FILE).exists()
    with pytest.raises(ArtefactError, match="kept no state"):
        read_parent(folder)


def test_scenario_must_go_on_where_the_run_ended(er: Path) -> None:
    assert "has 2 tasks, and the run has been trained on 2" in refused(SpecError, er, shortened(2))
    first = ONE_GO.tasks[0].model_copy(update={"split": "val"})
    changed = ONE_GO.model_copy(update={"tasks": (first, *ONE_GO.tasks[1:])})
    message = refused(SpecError, er, changed)
    assert "'tasks.0.split' of scenario toy differs from that of the run" in message
    probe = ONE_GO.probes[0].model_copy(update={"tile_size": 20})
    message = refused(SpecError, er, ONE_GO.model_copy(update={"probes": (probe,)}))
    assert "'probes.toy.tile_size' of scenario toy differs" in message
    protocol = ONE_GO.protocols["tiny"].model_copy(update={"buffer_size": 13})
    message = refused(SpecError, er, ONE_GO.model_copy(update={"protocols": {"tiny": protocol}}))
    assert message.startswith("'protocol.buffer_size' differs from that of the run in ")


def test_method_must_be_that_of_the_run(er: Path) -> None:
    parent = read_parent(er)
    with pytest.raises(SpecError, match=r"'method\.name' differs from that of the run"):
        extended_spec(parent, ONE_GO, load_method("lump"))


def test_task_by_options_needs_no_class_by_path(er: Path) -> None:
    task = {"dataset": "rsscn7", "split": "train"}
    message = refused(SpecError, er, task)
    assert "names the class adapters.py:Toy by path; write a TOML" in message
    assert "lacks --split" in refused(SpecError, er, {"dataset": "rsscn7"})
    assert message.endswith("give the TOML as --scenario.")
    assert "Say what comes next" in refused(SpecError, er, {})
    with pytest.raises(SpecError, match="Say what comes next"):
        longer_scenario(read_parent(er), ONE_GO, task)


def test_plugins_must_be_those_of_the_run(er: Path) -> None:
    from rscl_bench.avalanche_api import BaseSGDPlugin

    with pytest.raises(SpecError, match="The plugins of the run are none, and given are"):
        check_plugins(read_parent(er), [BaseSGDPlugin()])
