"""Loggers and the online probe: what they get, that nothing is doubled, that no bit changes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from helpers.runs import Quiet, Runner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import rscl_bench.engine.run_log as run_log_module
from rscl_bench import api
from rscl_bench.engine.online import OnlineProbe
from rscl_bench.engine.run import execute
from rscl_bench.engine.run_log import RunLog, check_logs
from rscl_bench.engine.watching import Watching
from rscl_bench.errors import ArtefactError, SpecError
from rscl_bench.results.losses import FILE, read_losses


@pytest.fixture(scope="module")
def runs(toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(toy_data, toy_cache, tmp_path_factory.mktemp("runs"))


class Breaking(Quiet):
    """Raises in the progress of one step, as a closed pipe does."""

    def __init__(self, step: int):
        super().__init__()
        self.left = step

    def progress(self, what: str, done: int, total: int) -> None:
        self.left -= 1
        if not self.left:
            raise BrokenPipeError


def test_watched_and_interrupted_run_has_the_bits_and_steps_of_a_plain_one(
    runs: Runner, tmp_path: Path
) -> None:
    plain = runs("cosmae")
    opened = runs.open(runs.spec("cosmae"))
    watching = Watching(("csv", "tensorboard"), 1)
    with pytest.raises(BrokenPipeError):
        execute(opened, tmp_path, Breaking(7), watching=watching)  # step 3 of task 2
    checkpoints = sorted((tmp_path / "checkpoints").glob("*.safetensors"))
    checkpoints[-1].unlink()  # resumes at the end of task 1: three steps are repeated
    said = Quiet()
    record = execute(opened, tmp_path, said, watching=watching)
    assert said.lines[0] == "resuming after step 0 of task 2"

    assert record.id == plain.record.id
    assert record.encoder_digest == plain.record.encoder_digest
    assert record.image_scores_digest == plain.record.image_scores_digest
    assert (tmp_path / FILE).read_bytes() == (plain.folder / FILE).read_bytes()
    online = [line for line in said.lines if line.startswith("online, validation split: task")]
    assert len(online) == 4  # two tasks of two epochs after the interruption

    logged = pd.read_csv(tmp_path / "logs" / "csv" / "metrics.csv")
    losses = read_losses(tmp_path / FILE)
    assert logged["step"].tolist() == list(range(1, len(losses) + 1))
    assert logged["loss"].tolist() == pytest.approx(losses["loss"].tolist())
    assert logged["learning_rate"].tolist() == pytest.approx(losses["learning_rate"].tolist())
    ends = logged["probe/toy/test_micro_map"].dropna().tolist()
    assert ends == pytest.approx([row["toy"].test.micro for row in record.scores[1:]])
    assert logged["online/toy/val_micro_map"].notna().sum() == 6
    assert (logged["images_per_second"].dropna() > 0).all()

    events = EventAccumulator(str(tmp_path / "logs" / "tensorboard"))
    events.Reload()
    scalars = events.Scalars("loss")
    assert [scalar.step for scalar in scalars] == logged["step"].tolist()
    assert [scalar.value for scalar in scalars] == pytest.approx(logged["loss"].tolist())


class Recorded:
    """Stands in for a logger of Lightning that sends values to a service."""

    made: list[str | None] = []  # noqa: RUF012
    lines: list[tuple[int, dict[str, float]]] = []  # noqa: RUF012

    def __init__(self, known: str | None):
        self.made.append(known)
        self.run_id = known or "given-id"
        self.experiment = type("Experiment", (), {"id": self.run_id})
        self.status = ""

    def log_metrics(self, values: Mapping[str, float], step: int) -> None:
        self.lines.append((step, dict(values)))

    def save(self) -> None:
        pass

    def finalize(self, status: str) -> None:
        self.status = status


@pytest.mark.parametrize("kind", ["wandb", "mlflow"])
def test_resumed_log_goes_on_in_its_run(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The services are not called: a recorded stand-in shows what reaches them."""
    monkeypatch.setattr(run_log_module, "find_spec", lambda name: object())
    monkeypatch.setattr(Recorded, "made", [])
    monkeypatch.setattr(Recorded, "lines", [])
    makers: Any = {kind: lambda folder, name, known, settings: Recorded(known)}
    monkeypatch.setattr(run_log_module, "_MAKERS", makers)
    log = RunLog([kind], tmp_path, "name", {}, fresh=True)
    log.add(1, {"loss": 3.0})
    log.add(2, {"loss": 2.0})
    log.add(2, {"score": 0.5})
    log.flush()
    log.add(3, {"loss": 1.5})  # lost by a crash
    resumed = RunLog([kind], tmp_path, "name", {}, fresh=False)
    for step, loss in ((2, 2.0), (3, 1.5), (4, 1.0)):
        resumed.add(step, {"loss": loss})
    resumed.close()
    assert Recorded.made == [None, "given-id"]
    assert [step for step, _ in Recorded.lines] == [1, 2, 3, 4]
    assert Recorded.lines[1][1] == {"loss": 2.0, "score": 0.5}
    again = RunLog([kind], tmp_path, "name", {}, fresh=True)
    assert Recorded.made[-1] is None  # a run from its beginning has a log of its own
    again.close()


def test_missing_package_and_unknown_logger_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="did you mean 'tensorboard'"):
        check_logs(["tensorbord"])
    monkeypatch.setattr(run_log_module, "find_spec", lambda name: None)
    check_logs(["csv"])
    for kind in ("tensorboard", "wandb", "mlflow"):
        with pytest.raises(SpecError, match=rf"pip install 'rscl-bench\[{kind}\]'"):
            check_logs([kind])
    with pytest.raises(SpecError, match=r"needs the package mlflow"):
        api.run("rs4", "finetune", log=["mlflow"], verbose=False)


def test_damaged_position_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "position.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"last": 3}))
    with pytest.raises(ArtefactError, match="remove the folder"):
        RunLog(["csv"], tmp_path, "name", {}, fresh=False)


def test_online_probe_needs_a_validation_split(runs: Runner) -> None:
    opened = runs("cosmae").opened
    with pytest.raises(SpecError, match="needs a probe with a validation split"):
        OnlineProbe([], opened.spec.protocol, opened.device)
