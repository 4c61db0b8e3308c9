"""Avalanche plugins that a user adds to a method."""

import inspect
import runpy
import signal
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.pages import read, write_examples
from helpers.plugins import Look
from helpers.runs import Quiet, Run, Runner
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.engine.run import execute
from rscl_bench.errors import TrainingError
from rscl_bench.interruption import Interrupted
from rscl_bench.results.folders import run_folder
from rscl_bench.results.record import read_record
from rscl_bench.testing.tiny import differing, start, tiny_spec, train

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from avalanche.core import BasePlugin
    from avalanche.training import plugins as shipped


class Momentum(BaseSGDPlugin):  # type: ignore[misc]
    """Adds a part of the last step's loss gradient to a bias, and keeps the part in a state."""

    def __init__(self) -> None:
        super().__init__()
        self.past = torch.zeros(1)
        self.epochs = torch.zeros(1)

    def before_training_epoch(self, *_: Any, **__: Any) -> None:
        self.epochs += 1

    def after_training_epoch(self, *_: Any, **__: Any) -> None:
        self.epochs += 10

    def before_update(self, trainer: Any, **_: Any) -> None:
        bias = trainer.model.predict.bias
        self.past = 0.9 * self.past + bias.grad.mean()
        bias.grad += self.past + 0.01 * self.epochs

    def state_dict(self) -> dict[str, Tensor]:
        return {"past": self.past, "epochs": self.epochs}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.past, self.epochs = state["past"].clone(), state["epochs"].clone()


class Stateless(BaseSGDPlugin):  # type: ignore[misc]
    """Halves the loss."""

    def before_backward(self, trainer: Any, **_: Any) -> None:
        trainer.loss *= 0.5


@pytest.fixture(scope="module")
def runs(toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(toy_data, toy_cache, tmp_path_factory.mktemp("runs"))


def run_with(runs: Runner, out: Path, plugin: BaseSGDPlugin, reporter: Quiet | None = None) -> Run:
    prepared = runs.open(runs.spec("cosmae")).with_plugins([plugin])
    folder, reporter = run_folder(out, prepared.identity), reporter or Quiet()
    return Run(prepared, folder, execute(prepared, folder, reporter, interval=0), reporter)


class Kill(Quiet):
    """Asks a run to end in some step of some task."""

    def __init__(self, task: int, step: int) -> None:
        super().__init__()
        self.place = (f"training task {task + 1}", step)

    def progress(self, what: str, done: int, total: int) -> None:
        if what.startswith(self.place[0]) and done == self.place[1]:
            signal.raise_signal(signal.SIGTERM)


def test_plugins_are_in_the_identity(runs: Runner, tmp_path: Path) -> None:
    plain, run = runs("cosmae"), run_with(runs, tmp_path, Stateless())
    assert "plugins" not in plain.record.identity.model_dump(mode="json")
    assert run.record.identity.plugins == (f"{__name__}.Stateless",)
    assert run.record.id != plain.record.id
    assert run.folder.name != plain.folder.name
    assert read_record(run.folder / "record.json") == run.record
    assert differing(run.encoder, plain.encoder)


# After the last step of an epoch, within an epoch, and after the last step of the stream.
@pytest.mark.parametrize("place", [(0, 2), (0, 3), (1, 3), (2, 4)])
def test_state_of_a_plugin_is_in_checkpoints(
    runs: Runner, tmp_path: Path, place: tuple[int, int]
) -> None:
    whole = run_with(runs, tmp_path / "whole", Momentum())
    with pytest.raises(Interrupted):
        run_with(runs, tmp_path / "again", Momentum(), Kill(*place))
    again = run_with(runs, tmp_path / "again", Momentum())
    assert again.reporter.lines[0].startswith("resuming after step")
    assert not differing(whole.encoder, again.encoder)
    assert [t.final_loss for t in whole.record.tasks] == [t.final_loss for t in again.record.tasks]


def test_run_with_a_plugin_without_state_starts_over(runs: Runner, tmp_path: Path) -> None:
    killed = Kill(1, 2)
    with pytest.raises(Interrupted, match="the beginning"):
        run_with(runs, tmp_path, Stateless(), killed)
    assert "Stateless has no state_dict and load_state_dict" in killed.lines[0]
    assert not list(tmp_path.rglob("*.safetensors"))
    again = run_with(runs, tmp_path, Stateless())
    assert again.record.provenance.resumed == ()


def test_state_that_is_no_tensor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Momentum()
    monkeypatch.setattr(plugin, "state_dict", lambda: {"epochs": 3})
    trainer = start(tiny_spec(), plugins=[plugin])
    with pytest.raises(TrainingError, match=r"Momentum\.state_dict returned 'epochs' of type int"):
        trainer.snapshot()


class Stop(BaseSGDPlugin):  # type: ignore[misc]
    """Stops the first task after some steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step
        self.epochs = 0

    def after_training_iteration(self, trainer: Any, **_: Any) -> None:
        if (trainer.task, trainer.step) == (0, self.step - 1):
            trainer.stop_training()

    def after_training_epoch(self, *_: Any, **__: Any) -> None:
        self.epochs += 1


@pytest.mark.parametrize(("step", "epochs"), [(1, 1), (2, 1), (3, 2)])
def test_plugin_can_stop_a_task_early(step: int, epochs: int) -> None:
    losses: list[float] = []
    plugin = Stop(step)
    trainer = start(tiny_spec(), plugins=[plugin])
    trainer.on_step = lambda task, _step, _steps, loss: losses.append(float(loss))
    train(trainer, [0])
    assert trainer.steps_taken == [step]
    assert plugin.epochs == epochs
    last_epoch = losses[2 * (epochs - 1) :]
    assert trainer.final_loss == pytest.approx([sum(last_epoch) / len(last_epoch)])
    train(trainer, [1])
    assert trainer.steps_taken == [step, 4]


#: The plugins of Avalanche 0.6: how each is made, and what comes of it in training without labels.
MODEL = torch.nn.Linear(2, 2)
OPTIMISER = torch.optim.SGD(MODEL.parameters(), lr=0.1)
RUNS: dict[str, dict[str, Any]] = {
    "EarlyStoppingPlugin": {"patience": 1, "val_stream_name": "train"},
    "FromScratchTrainingPlugin": {"reset_optimizer": False},
    "LRSchedulerPlugin": {"scheduler": torch.optim.lr_scheduler.StepLR(OPTIMISER, 1)},
    "SynapticIntelligencePlugin": {"si_lambda": 1.0},
    "TrainGeneratorAfterExpPlugin": {},
}
CANNOT: dict[str, dict[str, Any]] = {
    "AGEMPlugin": {"patterns_per_experience": 4, "sample_size": 4},
    "BiCPlugin": {"mem_size": 8},
    "CWRStarPlugin": {"model": MODEL},
    "CoPEPlugin": {"n_classes": 2},
    "CurrentDataFeCAMUpdate": {},
    "CurrentDataNCMUpdate": {},
    "EWCPlugin": {"ewc_lambda": 1.0},
    "FeCAMOracle": {},
    "FeatureDistillationPlugin": {},
    "GDumbPlugin": {"mem_size": 8},
    "GEMPlugin": {"patterns_per_experience": 4, "memory_strength": 0.5},
    "GSS_greedyPlugin": {"mem_size": 8, "mem_strength": 2, "input_size": [3, 16, 16]},
    "GenerativeReplayPlugin": {},
    "LFLPlugin": {"lambda_e": 1.0},
    "LwFPlugin": {"alpha": 1.0, "temperature": 2.0},
    "MASPlugin": {},
    "MIRPlugin": {"batch_size_mem": 4},
    "MemoryFeCAMUpdate": {"mem_size": 8},
    "MemoryNCMUpdate": {"mem_size": 8},
    "NCMOracle": {},
    "RARPlugin": {"batch_size_mem": 4, "name_ext_layer": "encoder"},
    "RWalkPlugin": {},
    "ReplayPlugin": {"mem_size": 8},
}


#: What a plugin raises where labels, a classifier or Avalanche's own loader are not there.
NOT_FOUND = (AssertionError, AttributeError, NotImplementedError)


def make(name: str, arguments: dict[str, Any]) -> BaseSGDPlugin:
    return getattr(shipped, name)(**arguments)


def test_every_shipped_plugin_is_known() -> None:
    classes = {
        name
        for name, found in vars(shipped).items()
        if inspect.isclass(found) and issubclass(found, BasePlugin)
    }
    assert classes - {"SupervisedPlugin"} == RUNS.keys() | CANNOT.keys()  # SupervisedPlugin: a base
    assert not RUNS.keys() & CANNOT.keys()


@pytest.fixture(scope="module")
def plain() -> list[dict[str, Tensor]]:
    return train(start(tiny_spec()))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(RUNS))
def test_shipped_plugin_runs(name: str, plain: list[dict[str, Tensor]]) -> None:
    states = train(start(tiny_spec(), plugins=[make(name, RUNS[name])]))
    changed = [bool(differing(*pair)) for pair in zip(plain, states, strict=True)]
    assert changed == [False, *([name == "FromScratchTrainingPlugin"] * 2)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(CANNOT))
def test_shipped_plugin_cannot_run(name: str) -> None:
    trainer = start(tiny_spec(), plugins=[make(name, CANNOT[name])])
    reasons = (
        AttributeError,
        TypeError,
        AssertionError,
        ValueError,
        IndexError,
        NotImplementedError,
    )
    with pytest.raises(reasons):
        train(trainer)


def test_documentation_lists_every_shipped_plugin() -> None:
    page = read("docs", "extending.md")
    table = page.partition("## Avalanche plugins")[2]
    assert [name for name in (*RUNS, *CANNOT) if f"`{name}`" not in table] == []


def test_example_of_the_documentation(tmp_path: Path) -> None:
    write_examples(tmp_path)
    plugin = runpy.run_path(str(tmp_path / "clipping.py"))["ClipGradients"](max_norm=1e-3)
    norms: list[float] = []

    def look(trainer: Any) -> None:
        gradients = [p.grad for p in trainer.model.parameters() if p.grad is not None]
        norms.append(float(torch.cat([gradient.flatten() for gradient in gradients]).norm()))

    trainer = start(tiny_spec(), plugins=[plugin, Look(look, "before_update")])
    train(trainer, [0])
    assert norms == pytest.approx([1e-3] * 4, rel=1e-2)
