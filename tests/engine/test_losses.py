"""The losses of a run: windows, what a checkpoint keeps, and the file beside the record."""

from pathlib import Path

import pandas as pd
import pytest
import torch
from helpers.runs import Quiet, Runner

import rscl_bench.engine.losses as losses_module
from rscl_bench.engine.losses import Losses, TaskLosses
from rscl_bench.engine.run import execute
from rscl_bench.errors import ArtefactError
from rscl_bench.results.losses import FILE, find_losses, read_losses, write_losses


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


@pytest.mark.parametrize("steps", [1, 7, 999, 1000, 1001, 2500, 40_001])
def test_windows_hold_every_step_once(steps: int) -> None:
    own = TaskLosses.of(steps, torch.device("cpu"))
    values = torch.arange(1, steps + 1, dtype=torch.float64)
    ended = [own.add(value, value / 4, float(value)) for value in values]
    lines = own.windows()
    assert len(lines) <= 1000
    assert [line[0] for line in lines[1:]] == [line[1] + 1 for line in lines[:-1]]
    assert (lines[0][0], lines[-1][1]) == (1, steps)
    for first, last, rate, loss, objective, strategies in lines:
        mean = (first + last) / 2
        assert (loss, objective, rate) == pytest.approx((mean, mean / 4, last))
        assert strategies == pytest.approx(loss - objective)
    assert sum(ended) == steps // own.stride


def test_losses_of_a_stopped_task_are_means_over_its_steps() -> None:
    own = TaskLosses.of(2500, torch.device("cpu"))  # windows of 3 steps
    for value in (1.0, 2.0, 3.0, 4.0):
        own.add(torch.tensor(value), torch.tensor(0.0), 0.1)
    assert [line[:2] for line in own.windows()] == [(1, 3), (4, 4)]
    assert [line[3] for line in own.windows()] == [2.0, 4.0]


def test_file_beside_the_record_has_the_losses(runs: Runner) -> None:
    run = runs("cosmae")
    frame = read_losses(run.folder / FILE)
    for number, task in enumerate(run.record.tasks, 1):
        own = frame[frame["task"] == number]
        assert own["last_step"].max() == task.steps
        assert set(own["task_name"]) == {task.name}
        epoch = own.tail(task.steps // task.epochs)
        assert epoch["loss"].mean() == pytest.approx(task.final_loss, rel=1e-6)
    assert (frame.loc[frame["task"] == 1, "strategies"] == 0).all()  # plain in the first task
    assert (frame.loc[frame["task"] == 2, "strategies"] != 0).any()  # model mixup's contrast
    assert frame["learning_rate"].between(0, frame["learning_rate"].max()).all()
    assert find_losses([run.folder]) == find_losses([run.folder / "record.json"])


@pytest.mark.parametrize("window", [1000, 2])
def test_resumed_run_has_the_same_losses(
    runs: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    """Two windows per task: the interruption at step 3 falls within a window."""
    monkeypatch.setattr(losses_module, "WINDOWS", window)
    whole = runs.fresh(runs.spec("cosmae"), tmp_path / "whole")
    opened = runs.open(runs.spec("cosmae"))
    folder = tmp_path / "resumed"
    with pytest.raises(BrokenPipeError):
        execute(opened, folder, Breaking(7))
    assert set(read_losses(folder / FILE)["task"]) == {1}  # of the task that has ended
    (folder / FILE).unlink()
    execute(opened, folder, Quiet())
    assert (folder / FILE).read_bytes() == (whole.folder / FILE).read_bytes()


def test_checkpoint_without_losses_is_resumed() -> None:
    """A checkpoint of a run that an earlier version began."""
    losses = Losses(["a", "b"], torch.device("cpu"))
    assert not losses.add(0, 3, 9, torch.tensor(1.0), torch.tensor(1.0), 0.1)
    losses.add(1, 1, 9, torch.tensor(2.0), torch.tensor(1.0), 0.1)
    assert losses.frame()["task_name"].tolist() == ["b"]


def test_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_text("task,loss\n1,2\n")
    with pytest.raises(ArtefactError, match="is no file of losses"):
        read_losses(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ArtefactError, match="is no file of losses"):
        read_losses(path)
    path.unlink()
    with pytest.raises(ArtefactError, match="cannot be read"):
        read_losses(path)
    with pytest.raises(ArtefactError, match=r"There is no losses\.csv among these runs"):
        find_losses([tmp_path])
    with pytest.raises(ArtefactError, match="There is no file or folder"):
        find_losses([tmp_path / "absent"])


def test_written_losses_are_read_again(tmp_path: Path) -> None:
    losses = Losses(["a"], torch.device("cpu"))
    losses.add(0, 1, 1, torch.tensor(0.1), torch.tensor(0.3), 1e-4)
    write_losses(losses.frame(), tmp_path / FILE)
    pd.testing.assert_frame_equal(read_losses(tmp_path / FILE), losses.frame())
