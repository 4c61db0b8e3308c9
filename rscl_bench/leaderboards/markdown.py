"""Writes a leaderboard as Markdown, for readers."""

from collections.abc import Callable, Sequence

import pandas as pd

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.comparisons import separations
from rscl_bench.leaderboards.formats import ABSENT, percent, significant
from rscl_bench.leaderboards.markdown_header import header
from rscl_bench.leaderboards.rows import Row
from rscl_bench.leaderboards.statistics import Interval
from rscl_bench.leaderboards.values import (
    COSTS,
    DOMAIN_METRICS,
    KINDS,
    OUTSIDE_METRICS,
    domain_column,
    outside_column,
    score_column,
)
from rscl_bench.results.schema import ProbeRecord

_LEFT = ("method", "precision", "device", "separated above")


def leaderboard_markdown(board: Board) -> str:
    """Return the header, a section per probe, the continual metrics and the costs."""
    sections = [header(board)]
    sections += [_probe_section(board, probe) for probe in board.layout.probes]
    if any(probe.task is not None for probe in board.layout.probes):
        sections.append(_continual_section(board))
    sections.append(_cost_section(board))
    return "\n".join(sections)


def _probe_section(board: Board, probe: ProbeRecord) -> str:
    domain = "outside all tasks" if probe.task is None else f"domain of task {probe.task}"
    counted = board.layout.scores[0][probe.name].test.macro_labels
    lines = [
        f"## Probe {probe.name}",
        "",
        f"{probe.probe}, {probe.test_tiles} test tiles, {probe.labels} labels, {domain}.",
        "",
    ]
    titles = ("micro-mAP", f"macro-mAP (over {counted} labels with positives)")
    for kind, title in zip(KINDS, titles, strict=True):
        lines += [f"### {title}", "", *_pipes(_score_table(board, probe, kind)), ""]
    lines += ["### Which methods are separated, by micro-mAP", "", *_separated(board, probe), ""]
    return "\n".join(lines)


def _score_table(board: Board, probe: ProbeRecord, kind: str) -> dict[str, Sequence[str]]:
    """Return the columns of one probe's scores; the table of micro-mAP also has the ranks."""
    rows, tasks = board.rows, board.layout.tasks
    table: dict[str, Sequence[str]] = {}
    if kind == "micro":
        ranks = board.ranks.get(probe.name, pd.Series(index=board.means.index, dtype="float64"))
        table["rank"] = [ABSENT if pd.isna(rank) else f"{rank:.0f}" for rank in ranks]
    table |= _names(board, rows)
    for number, task in enumerate(tasks, 1):
        column = score_column(number, probe.name, kind)
        table[f"T{number} {task.name}"] = _means(board, rows, column)
    intervals = [board.bootstrap_interval(row, probe.name, kind) for row in rows]
    table[f"T{len(tasks)}, test images"] = [_bracketed(interval) for interval in intervals]
    if probe.task is None:
        for metric in OUTSIDE_METRICS[
            1:
        ]:  # the first metric, the final score, is the column of the last task
            column = outside_column(probe.name, metric, kind)
            table[_words(metric)] = _means(board, rows, column)
    return table


def _separated(board: Board, probe: ProbeRecord) -> list[str]:
    compared = board.compared[board.compared["probe"] == probe.name]
    judged = compared[(compared["score"] == "micro") & compared["separated"].notna()]
    apart = separations(judged)
    above = dict(list(apart.groupby(["above", "precision", "device"])["below"]))
    lines = [
        f"{len(apart)} of {len(judged)} pairs, upper references included. All pairs, and "
        "macro-mAP: [comparisons.csv](comparisons.csv).",
    ]
    rows = [row for row in board.rows if row.key in above]
    below = [
        ", ".join(
            other.key.method
            for other in board.rows
            if other.key[1:] == row.key[1:] and other.key.method in set(above[row.key])
        )
        for row in rows
    ]
    table = {**_names(board, rows), "separated above": below}
    return [*lines, "", *_pipes(table)] if rows else lines


def _continual_section(board: Board) -> str:
    rows = _trained(board)
    lines = ["## Continual metrics", "", "Over the probes of the tasks' domains, in points.", ""]
    for kind in KINDS:
        table = _names(board, rows)
        for metric in DOMAIN_METRICS:
            table[_words(metric)] = _means(board, rows, domain_column(metric, kind))
        lines += [f"### {kind}-mAP", "", *_pipes(table), ""]
    return "\n".join(lines)


def _cost_section(board: Board) -> str:
    rows = _trained(board)
    table = _names(board, rows)
    for cost in COSTS:
        write: Callable[[float], str] = "{:.0f}".format if "parameters" in cost else significant
        means = board.means[cost].to_dict()
        table[_words(cost)] = [write(means[row.key]) for row in rows]
    lines = [
        "## Cost",
        "",
        "Training only, mean over seeds; compare times within one device.",
        "",
        *_pipes(table),
        "",
    ]
    return "\n".join(lines)


def _trained(board: Board) -> list[Row]:
    return [row for row in board.rows if row.reference != "lower"]


def _names(board: Board, rows: Sequence[Row]) -> dict[str, Sequence[str]]:
    """Return the columns with the keys of rows and with their number of seeds."""
    shown = ("method",) if board.shared_setting else ("method", "precision", "device")
    names: dict[str, Sequence[str]] = {
        name: [getattr(row.key, name) or ABSENT for row in rows] for name in shown
    }
    return {**names, "seeds": [ABSENT if r.seeds is None else f"{r.seeds}" for r in rows]}


def _means(board: Board, rows: Sequence[Row], column: str) -> list[str]:
    """Return ``mean ± half the width of the t interval`` of rows; only the mean for one seed."""
    means, halves = (board.means[f"{column}.{part}"].to_dict() for part in ("mean", "ci95"))
    return [
        percent(means[row.key])
        + ("" if pd.isna(halves[row.key]) else f" ± {percent(halves[row.key])}")
        for row in rows
    ]


def _pipes(table: dict[str, Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table with the columns of ``table``."""
    rules = ["---" if head in _LEFT else "---:" for head in table]
    lines = [list(table), rules, *zip(*table.values(), strict=True)]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _bracketed(interval: Interval | None) -> str:
    if interval is None:
        return ABSENT
    return f"[{percent(interval.low)}, {percent(interval.high)}]"
