"""Curves of a score over the tasks of the stream, with bands of the interval over seeds."""

import math
from collections.abc import Sequence
from itertools import cycle

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.columns import score_column
from rscl_bench.leaderboards.export_choice import Kind, board_title, percentage
from rscl_bench.leaderboards.rows import Row
from rscl_bench.plots.style import GREY, Look, drawing, fix_layout, looks, new_figure
from rscl_bench.results.schema import ProbeRecord

#: More bands than this would hide each other; the others are lines with whiskers.
_BANDS = 4


def curve(board: Board, row: Row, probe: ProbeRecord, kind: Kind) -> pd.DataFrame:
    """Return the scores of a row after every task in percent.

    Returns:
        A line per task, from 1, with ``mean``, and ``half``: half the width of the 95 % t interval
        over seeds, NaN for one seed.
    """
    columns = [score_column(t, probe.name, kind) for t in range(1, len(board.layout.tasks) + 1)]
    return pd.DataFrame(
        {
            "mean": [percentage(board, row, f"{column}.mean") for column in columns],
            "half": [percentage(board, row, f"{column}.ci95") for column in columns],
        },
        index=pd.RangeIndex(1, len(columns) + 1),
    )


def draw_curves(
    board: Board, rows: Sequence[Row], probes: Sequence[ProbeRecord], kind: Kind
) -> Figure:
    """Draw a panel per probe with a line per method; lower references are grey lines.

    The interval over seeds is a band where at most four methods are shown, and else a whisker.
    """
    across = min(len(probes), 3)
    down = math.ceil(len(probes) / across)
    legend_lines = math.ceil((len(rows) + 2) / (2 * across + 1))
    with drawing():
        figure = new_figure(max(4.6, 2.6 * across), 2.3 * down + 0.3 + 0.16 * legend_lines)
        panels = figure.subplots(down, across, squeeze=False).ravel()
        drawn = looks(len(rows))
        for probe, axes in zip(probes, panels, strict=False):
            _panel(axes, board, list(zip(rows, drawn, strict=True)), probe, kind)
        for axes in panels[len(probes) :]:
            axes.set_axis_off()
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=2 * across + 1)
        seeds = sorted({len(row.runs) for row in rows})
        several = " to ".join(map(str, dict.fromkeys((seeds[0], seeds[-1]))))
        figure.suptitle(
            f"{board_title(board)}\n{kind}-mAP in %, test split; mean of {several} seeds and its "
            "95 % interval",
            fontsize=8.5,
        )
        fix_layout(figure)
    return figure


def _panel(
    axes: Axes, board: Board, drawn: list[tuple[Row, Look]], probe: ProbeRecord, kind: Kind
) -> None:
    tasks = [task.name for task in board.layout.tasks]
    for number, (row, look) in enumerate(drawn):
        values = curve(board, row, probe, kind)
        # Lines of many methods stand side by side, so that their whiskers can be told apart.
        shift = 0.0 if len(drawn) <= _BANDS else 0.3 * (number / (len(drawn) - 1) - 0.5)
        x = values.index.to_numpy(dtype=float) + shift
        mean, half = values["mean"].to_numpy(), values["half"].to_numpy()
        axes.plot(
            x, mean, color=look.colour, marker=look.marker, ls=look.dash, label=board.label(row)
        )
        if len(drawn) <= _BANDS:
            axes.fill_between(x, mean - half, mean + half, color=look.colour, alpha=0.13, lw=0)
            for edge in (mean - half, mean + half):
                axes.plot(x, edge, color=look.colour, lw=0.5, ls=look.dash, alpha=0.6)
        else:
            axes.errorbar(x, mean, half, fmt="none", ecolor=look.colour, elinewidth=0.6, alpha=0.7)
    lower = [row for row in board.rows if row.reference == "lower"]
    for row, dash in zip(lower, cycle(("--", ":", "-.")), strict=False):
        level = percentage(board, row, f"{score_column(1, probe.name, kind)}.mean")
        if not math.isnan(level):
            axes.axhline(level, color=GREY, lw=0.9, ls=dash, label=board.label(row))
    axes.set_xticks(range(1, len(tasks) + 1), [name.replace("-", "-\n") for name in tasks])
    axes.set_xlim(0.7, len(tasks) + 0.3)
    own = "" if probe.task is None else f" (domain of {probe.task})"
    axes.set_title(f"{probe.name}{own}" if probe.task != probe.name else probe.name)
    if probe.task is not None:
        axes.axvline(tasks.index(probe.task) + 1, color=GREY, lw=0.5, ls=(0, (1, 2)), zorder=0)
    axes.set_xlabel("after task")
    axes.set_ylabel(f"{kind}-mAP in %")
