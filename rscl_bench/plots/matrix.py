"""The matrix R[t][j] of one method: the score of each probe after each task."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.columns import score_column
from rscl_bench.leaderboards.export_choice import Kind, board_title, percentage
from rscl_bench.leaderboards.rows import Row
from rscl_bench.plots.style import drawing, fix_layout, is_dark, new_figure
from rscl_bench.results.schema import INITIAL_ENCODER, RANDOM_ENCODER, ProbeRecord

_COLOURS = "YlGnBu"  # one direction from light to dark, also for colour-blind readers and in grey
_DARKEST = 0.62
_CELL = (0.92, 0.36)  # inches


def score_matrix(
    board: Board, row: Row, probes: list[ProbeRecord], kind: Kind
) -> NDArray[np.float64]:
    """Return the mean scores of a row over its seeds in percent, ``[T + 1, P]``.

    Row 0 is of the encoder before the first task, row t of the encoder after task t. A score that
    a seed lacks, or that is undefined, makes its cell NaN.

    Args:
        board: The leaderboard.
        row: A trained row.
        probes: Probes, in the order of the columns.
        kind: ``micro`` or ``macro``.
    """
    maps = [
        [getattr(run.record.scores[0][probe.name].test, kind) for probe in probes]
        for run in row.runs.values()
    ]
    before = np.array(maps, dtype=np.float64).mean(axis=0)
    after = [
        [percentage(board, row, f"{score_column(task, probe.name, kind)}.mean") for probe in probes]
        for task in range(1, len(board.layout.tasks) + 1)
    ]
    return np.array([100 * before, *after], dtype=np.float64)


def draw_matrix(board: Board, row: Row, probes: list[ProbeRecord], kind: Kind) -> Figure:
    """Draw the matrix as an annotated heat map: rows are tasks, columns are probes.

    Probes of a task's domain come first, in the order of the tasks; a frame marks the domain of the
    task that was just trained. Probes of no task's domain stand apart, on the right.
    """
    tasks = [task.name for task in board.layout.tasks]
    ordered = [p for task in tasks for p in probes if p.task == task]
    ordered += [p for p in probes if p.task is None]
    values = score_matrix(board, row, ordered, kind)
    places = _places(ordered)
    width = max(3.4, 1.2 + _CELL[0] * (places[-1] + 1))
    with drawing():
        figure = new_figure(width, 1.05 + _CELL[1] * len(values))
        axes = figure.add_subplot()
        _cells(axes, values, places)
        for number, probe in enumerate(ordered):
            if probe.task is not None:
                corner = places[number] - 0.46, tasks.index(probe.task) + 1 - 0.44
                axes.add_patch(
                    Rectangle(corner, 0.92, 0.88, fill=False, edgecolor="#D55E00", linewidth=1.8)
                )
        axes.set_xlim(-0.5, places[-1] + 0.5)
        axes.set_ylim(len(values) - 0.5, -0.5)
        axes.set_xticks(places, [_probe_title(probe) for probe in ordered])
        axes.set_yticks(range(len(values)), [_before(row), *tasks])
        axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
        axes.spines[:].set_visible(False)
        axes.set_ylabel("after task")
        seeds = len(row.runs)
        axes.set_title(
            f"{board.label(row)}: {kind}-mAP in %, test split, "
            f"{f'mean of {seeds} seeds' if seeds > 1 else 'one seed'}\n{board_title(board)}",
            pad=10,
        )
        if any(probe.task for probe in ordered):
            axes.set_xlabel("frame: probe of the task just trained", fontsize=7)
        fix_layout(figure)
    return figure


def _cells(axes: Axes, values: NDArray[np.float64], places: list[float]) -> None:
    """Draw a coloured cell with its value for every score; an undefined score is hatched."""
    low, high = np.nanmin(values), np.nanmax(values)
    colours = colormaps[_COLOURS]
    for t, line in enumerate(values):
        for place, value in zip(places, line, strict=True):
            defined = not np.isnan(value)
            share = (value - low) / (high - low) if defined and high > low else 0.5
            colour = colours(_DARKEST * float(share)) if defined else (1.0, 1.0, 1.0, 1.0)
            hatch = None if defined else "////"
            axes.add_patch(
                Rectangle(
                    (place - 0.5, t - 0.5),
                    1,
                    1,
                    facecolor=colour,
                    edgecolor="white" if defined else "#999999",
                    linewidth=0.8,
                    hatch=hatch,
                )
            )
            text = f"{value:.1f}" if defined else "–"
            ink = "white" if is_dark(colour) else "black"
            axes.text(place, t, text, ha="center", va="center", color=ink, fontsize=8)


def _places(probes: list[ProbeRecord]) -> list[float]:
    """Return the horizontal places of the columns; a gap divides the probes of no domain."""
    domains = any(probe.task is not None for probe in probes)
    return [
        number + (0.25 if domains and probe.task is None else 0.0)
        for number, probe in enumerate(probes)
    ]


def _probe_title(probe: ProbeRecord) -> str:
    """Return a probe's name, broken at hyphens where the name is long."""
    name = probe.name
    return name.replace("-", "-\n") if len(name) > 11 else name


def _before(row: Row) -> str:
    """Return the name of the encoder before the first task."""
    run = next(iter(row.runs.values()))
    return RANDOM_ENCODER if run.record.identity.init is None else INITIAL_ENCODER
