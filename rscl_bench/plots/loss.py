"""Curves of the training loss of runs."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from rscl_bench.errors import SpecError
from rscl_bench.leaderboards.keys import row_key
from rscl_bench.plots.style import GREY, drawing, fix_layout, looks, new_figure
from rscl_bench.results.losses import read_losses
from rscl_bench.results.record import read_record

#: More curves than this cannot be told apart.
MOST = 12


def run_name(path: Path) -> str:
    """Return method and seed of a run.

    Args:
        path: The run's file of losses. The record beside it has the names; a run without a record
            is not finished, and has them in its folders.
    """
    record = path.with_name("record.json")
    if record.is_file():
        read = read_record(record)
        return f"{row_key(read).method}, seed {read.identity.seed}"
    folder = path.resolve().parent
    seed = folder.name.partition("-")[0].removeprefix("seed")
    return f"{folder.parent.name}, seed {seed} (not finished)"


def draw_losses(paths: Sequence[Path]) -> Figure:
    """Draw the loss of runs over their steps; dotted lines and names mark the tasks.

    Where strategies add a term to the loss, the objective's part is a thin line of the same colour.

    Args:
        paths: Files of losses.

    Raises:
        SpecError: If there are more than `MOST` runs.
        ArtefactError: If a file is damaged.
    """
    if len(paths) > MOST:
        raise SpecError(
            f"There are {len(paths)} runs, and at most {MOST} curves can be told apart; name fewer "
            "runs."
        )
    with drawing():
        figure = new_figure(6.6, 2.7 + 0.16 * ((len(paths) + 3) // 3))
        axes = figure.add_subplot()
        longest: pd.DataFrame | None = None
        for path, look in zip(paths, looks(len(paths)), strict=True):
            frame = read_losses(path)
            steps = _stream_steps(frame)
            shown = {"color": look.colour, "ls": look.dash}
            every = max(1, len(frame) // 12)
            axes.plot(
                steps,
                frame["loss"],
                marker=look.marker,
                markevery=every,
                lw=1.0,
                label=run_name(path),
                **shown,
            )
            if bool((frame["strategies"].abs() > 0).any()):
                axes.plot(steps, frame["objective"], lw=0.5, **shown)
            if longest is None or len(frame) > len(longest):
                longest = frame
        assert longest is not None
        _mark_tasks(axes, longest)
        axes.set_xlabel("step of the stream")
        axes.set_ylabel("loss")
        axes.margins(x=0.01)
        figure.suptitle(
            "training loss, mean over windows of steps; thin: the objective's part", fontsize=8.5
        )
        figure.legend(loc="outside lower center", ncols=3)
        fix_layout(figure)
    return figure


def _stream_steps(frame: pd.DataFrame) -> NDArray[np.float64]:
    """Return the middle step of every window, counted over the whole stream."""
    lengths = frame.groupby("task")["last_step"].max()
    before = lengths.cumsum().shift(fill_value=0)
    middle = (frame["first_step"] + frame["last_step"]) / 2
    steps: NDArray[np.float64] = (middle + frame["task"].map(before)).to_numpy(dtype=np.float64)
    return steps


def _mark_tasks(axes: Axes, frame: pd.DataFrame) -> None:
    """Draw a line at the first step of every task but the first, and write their names."""
    steps = _stream_steps(frame)
    for task, own in frame.groupby("task", sort=True):
        first = steps[own.index[0]]
        if task != frame["task"].iloc[0]:
            axes.axvline(first, color=GREY, lw=0.6, ls=":")
        axes.annotate(
            f" {own['task_name'].iloc[0]}",
            (first, 1.0),
            xycoords=("data", "axes fraction"),
            va="bottom",
            fontsize=7,
            color=GREY,
        )
