"""Writes a leaderboard as Markdown, for readers."""

from collections.abc import Callable, Sequence

import pandas as pd

from rscl_bench.leaderboards.board import Board, device_name
from rscl_bench.leaderboards.cells import bracketed, means, rank_cell, words
from rscl_bench.leaderboards.columns import (
    DOMAIN_METRICS,
    KINDS,
    OUTSIDE_METRICS,
    domain_column,
    outside_column,
    score_column,
)
from rscl_bench.leaderboards.comparisons import compared_rows, separations
from rscl_bench.leaderboards.costs import COSTS, costs_by_device
from rscl_bench.leaderboards.escaping import markdown_text
from rscl_bench.leaderboards.formats import ABSENT, SKETCH_WARNING, significant
from rscl_bench.leaderboards.keys import RowKey
from rscl_bench.leaderboards.markdown_header import header
from rscl_bench.leaderboards.rows import Row
from rscl_bench.results.marks import SELF_RUN
from rscl_bench.results.schema import ProbeRecord

_LEFT = ("method", "precision", "device", "mark", "separated above", "images of", "digest")


def leaderboard_markdown(board: Board) -> str:
    """Return the header, a section per probe, the continual metrics and the costs."""
    sections = [header(board)]
    sections += [_probe_section(board, probe) for probe in board.layout.probes]
    if any(probe.task is not None for probe in board.layout.probes):
        sections.append(_continual_section(board))
    sections += [_cost_section(board), _archive_section(board)]
    if board.key.edition == "sketch":
        sections.append(f"{SKETCH_WARNING}\n")
    return "\n".join(sections)


def _archive_section(board: Board) -> str:
    """Return the digests of the images, which all records of the table share."""
    record = board.layout
    what = "the source files" if record.format >= 3 else "the packed pixels"
    lines = [
        "## Archives",
        "",
        f"SHA-256 of {what} of each task and of each split of a probe, and of how images are cut. "
        "A run on other files does not join this table. The scenario's card names sources and "
        "licences.",
        "",
    ]
    data = record.identity.data
    columns: dict[str, Sequence[str]] = {"images of": list(data), "digest": list(data.values())}
    return "\n".join([*lines, *_pipes(columns), ""])


def _probe_section(board: Board, probe: ProbeRecord) -> str:
    domain = "outside all tasks" if probe.task is None else f"domain of task {probe.task}"
    counted = board.layout.scores[0][probe.name].test.macro_labels
    lines = [
        f"## Probe {probe.name}",
        "",
        f"{markdown_text(probe.probe)}, {probe.test_tiles} test tiles, {probe.labels} labels, "
        f"{domain}.",
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
        table["rank"] = [rank_cell(board, row, probe.name) for row in rows]
    table |= _names(board, rows)
    if kind == "micro" and board.marks != [SELF_RUN]:
        table["mark"] = [row.mark or ABSENT for row in rows]
    for number, task in enumerate(tasks, 1):
        column = score_column(number, probe.name, kind)
        table[f"T{number} {task.name}"] = means(board, rows, column)
    intervals = [board.bootstrap_interval(row, probe.name, kind) for row in rows]
    table[f"T{len(tasks)}, test images"] = [bracketed(interval) for interval in intervals]
    if probe.task is None:
        for metric in OUTSIDE_METRICS[
            1:
        ]:  # the first metric, the final score, is the column of the last task
            column = outside_column(probe.name, metric, kind)
            table[words(metric)] = means(board, rows, column)
    return table


def _separated(board: Board, probe: ProbeRecord) -> list[str]:
    """Return the counts of separated pairs, and a table of them."""
    compared = board.compared[board.compared["probe"] == probe.name]
    judged = compared[(compared["score"] == "micro") & compared["separated"].notna()]
    apart = separations(judged)
    lines = [
        f"{len(apart)} of {len(judged)} pairs are separated, upper references included. All pairs, "
        "and macro-mAP: [comparisons.csv](comparisons.csv).",
        *_difference_lines(judged),
    ]
    better = [row for row in board.rows if any(above == row.key for above, _ in apart)]
    if not better:
        return lines
    marks = _marks(judged)
    below = [
        ", ".join(
            board.label(other) + marks.get(frozenset({row.key, other.key}), "")
            for other in board.rows
            if (row.key, other.key) in apart
        )
        for row in better
    ]
    return [*lines, "", *_pipes({**_names(board, better), "separated above": below})]


def _difference_lines(judged: pd.DataFrame) -> list[str]:
    """Say how many pairs compare runs of two machines, and rows of two precisions."""
    other, unknown = ((judged[f"{name}_machine"] > 0).sum() for name in ("other", "unknown"))
    seeds = judged.loc[judged["other_machine"] > 0, "other_machine"].sum()
    mixed = int((judged["precision"] != judged["other_precision"]).sum())
    lines = []
    if other:
        lines.append(
            f"- †: {other} pairs compare runs of two machines, at {seeds} of their seeds in total"
        )
    if mixed:
        lines.append(f"- ‡: {mixed} pairs compare two precisions")
    if unknown:
        lines.append(f"- The records of {unknown} pairs do not tell whether one machine ran both")
    return ["", *lines] if lines else []


def _marks(judged: pd.DataFrame) -> dict[frozenset[RowKey], str]:
    """Return the marks of compared pairs: another machine, another precision."""
    marks: dict[frozenset[RowKey], str] = {}
    for pair, other in zip(compared_rows(judged), judged["other_machine"], strict=True):
        mixed = pair[0].precision != pair[1].precision
        marks[frozenset(pair)] = ("†" if other else "") + ("‡" if mixed else "")
    return marks


def _continual_section(board: Board) -> str:
    rows = _trained(board)
    lines = ["## Continual metrics", "", "Over the probes of the tasks' domains, in points.", ""]
    for kind in KINDS:
        table = _names(board, rows)
        for metric in DOMAIN_METRICS:
            table[words(metric)] = means(board, rows, domain_column(metric, kind))
        lines += [f"### {kind}-mAP", "", *_pipes(table), ""]
    return "\n".join(lines)


def _cost_section(board: Board) -> str:
    rows = {row.key: row for row in _trained(board)}
    costs = costs_by_device(list(rows.values()))
    lines_rows = [
        rows[RowKey(method, precision)]
        for method, precision in zip(costs["method"], costs["precision"], strict=True)
    ]
    table = _names(board, lines_rows)
    if costs["device"].nunique() > 1:
        table["device"] = costs["device"].tolist()
    table["seeds"] = [str(seeds) for seeds in costs["seeds"]]
    for cost in COSTS:
        write: Callable[[float], str] = "{:.0f}".format if "parameters" in cost else significant
        table[words(cost)] = [write(mean) or ABSENT for mean in costs[cost]]
    lines = [
        "## Cost",
        "",
        "Training only, mean over the seeds of one device. Times, utilisation and memory compare "
        "within one device only.",
        "",
        *_pipes(table),
        "",
    ]
    return "\n".join(lines)


def _trained(board: Board) -> list[Row]:
    return [row for row in board.rows if row.reference != "lower"]


def _names(board: Board, rows: Sequence[Row]) -> dict[str, Sequence[str]]:
    """Return the columns with the keys of rows and with their number of seeds."""
    names: dict[str, Sequence[str]] = {"method": [row.key.method for row in rows]}
    if len(board.precisions) > 1:
        names["precision"] = [row.key.precision or ABSENT for row in rows]
    if len({device for row in board.rows for device in row.devices}) > 1:
        names["device"] = [device_name(row) or ABSENT for row in rows]
    return {**names, "seeds": [ABSENT if r.seeds is None else f"{r.seeds}" for r in rows]}


def _pipes(table: dict[str, Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table with the columns of ``table``."""
    rules = ["---" if head in _LEFT else "---:" for head in table]
    columns = [
        [markdown_text(cell) for cell in column] if head in _LEFT else column
        for head, column in table.items()
    ]
    lines = [list(table), rules, *zip(*columns, strict=True)]
    return ["| " + " | ".join(line) + " |" for line in lines]
