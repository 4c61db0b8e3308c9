"""Leaderboard rows as CSV and as Markdown; the same rows give the same bytes."""

import csv
import io
import json
from collections.abc import Iterable, Sequence

import numpy as np

from rscl_bench.results.collect import GroupKey, Loaded
from rscl_bench.results.record import ProbeRecord, RunRecord
from rscl_bench.results.rows import (
    DOMAIN_METRICS,
    EMPTY,
    KINDS,
    OUTSIDE_METRICS,
    Cell,
    Row,
    columns,
    domain_column,
    outside_column,
    score_column,
)

_ABSENT = "–"
_COST_FIELDS = ("training_hours", "images_per_second", "trainable_parameters")


def csv_table(rows: Sequence[Row], layout: RunRecord) -> str:
    """Return the table for programs: percent with two decimals, empty where undefined.

    Args:
        rows: Of one leaderboard.
        layout: Any of its records, for tasks and probes.

    Returns:
        Text with line feeds as newlines; each score column is split into ``.mean`` and ``.std``.
    """
    names = columns(layout)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    split = [f"{name}.{part}" for name in names for part in Cell._fields]
    writer.writerow(["method", "precision", "device", "seeds", *split, *_COST_FIELDS])
    for row in rows:
        cells = [row.cells.get(name, EMPTY) for name in names]
        values = [_percent(value) for cell in cells for value in cell]
        writer.writerow([*row.key, "" if row.seeds is None else row.seeds, *values, *_cost(row)])
    return text.getvalue()


def markdown_table(rows: Sequence[Row], key: GroupKey, loaded: Sequence[Loaded]) -> str:
    """Return the table for readers: a header that says what the numbers are, then the tables.

    Args:
        rows: Of one leaderboard.
        key: What its records share.
        loaded: Its records.
    """
    layout = loaded[0].record
    sections = [_header(rows, key, loaded)]
    sections += [_probe_section(rows, layout, probe) for probe in layout.probes]
    if any(probe.task is not None for probe in layout.probes):
        sections.append(_continual_section(rows))
    sections.append(_cost_section(rows))
    return "\n".join(sections)


def _header(rows: Sequence[Row], key: GroupKey, loaded: Sequence[Loaded]) -> str:
    layout = loaded[0].record
    stream = " → ".join(f"T{t} {task.name}" for t, task in enumerate(layout.tasks, 1))
    edition = (
        "real archives"
        if key.edition == "real"
        else "**sketch**: synthetic archives; the numbers say nothing about the real data"
    )
    asked = layout.identity.setting("seeds")
    short = [
        f"{_name(row)} ({row.seeds})" for row in rows if row.seeds is not None and row.seeds < asked
    ]
    missing = f"; fewer have {', '.join(short)}" if short else ""
    changed = {f"{n}={json.dumps(v)}" for i in loaded for n, v in i.protocol_overrides().items()}
    overridden = f", with {', '.join(sorted(changed))}" if changed else ""
    versions = ", ".join(sorted({item.record.identity.code for item in loaded}))
    lines = [
        f"# {key.scenario}: protocol {key.protocol}",
        "",
        "Built from run records by rscl-bench; not to be edited.",
        "",
        f"- Scenario: {key.scenario}, version {key.version}: {stream}",
        f"- Edition: {edition}",
        f"- Protocol: {key.protocol} (digest {key.protocol_digest}){overridden}",
        "- Numbers: micro-mAP and macro-mAP in % on the test split of each probe after each task; "
        "mean ± sample standard deviation over seeds, no deviation for one seed; "
        f"{_ABSENT} is undefined",
        f"- Seeds: the protocol asks for {asked} per row{missing}",
        "- References: `random-encoder` is the encoder before any training and "
        "`pixel-statistics` the mean and deviation of each band, so both are the same after "
        "every task",
        f"- Code: rscl-bench {versions}",
        "",
    ]
    return "\n".join(lines)


def _probe_section(rows: Sequence[Row], layout: RunRecord, probe: ProbeRecord) -> str:
    domain = "outside all tasks" if probe.task is None else f"domain of task {probe.task}"
    lines = [
        f"## Probe {probe.name}",
        "",
        f"{probe.probe}, {probe.test_tiles} test tiles, {probe.labels} labels, {domain}.",
        "",
    ]
    counted = layout.scores[0][probe.name].test.macro_labels
    titles = {"micro": "micro-mAP", "macro": f"macro-mAP (over {counted} labels with positives)"}
    heads = [f"T{t} {task.name}" for t, task in enumerate(layout.tasks, 1)]
    extra = OUTSIDE_METRICS[1:] if probe.task is None else ()  # the final score is the last task's
    heads += [_words(metric) for metric in extra]
    for kind in KINDS:
        names = [score_column(t, probe.name, kind) for t in range(1, len(layout.tasks) + 1)]
        names += [outside_column(probe.name, metric, kind) for metric in extra]
        lines += [f"### {titles[kind]}", "", *_score_table(rows, heads, names), ""]
    return "\n".join(lines)


def _continual_section(rows: Sequence[Row]) -> str:
    lines = ["## Continual metrics", "", "Over the probes of the tasks' domains, in points.", ""]
    trained = [row for row in rows if not row.is_reference]
    heads = [_words(metric) for metric in DOMAIN_METRICS]
    for kind in KINDS:
        names = [domain_column(metric, kind) for metric in DOMAIN_METRICS]
        lines += [f"### {kind}-mAP", "", *_score_table(trained, heads, names), ""]
    return "\n".join(lines)


def _cost_section(rows: Sequence[Row]) -> str:
    trained = [row for row in rows if not row.is_reference]
    body = [[*_who(row), *_cost(row)] for row in trained]
    heads = ["method", "precision", "device", "seeds", *map(_words, _COST_FIELDS)]
    lines = [
        "## Cost",
        "",
        "Training only, mean over seeds; compare times within one device.",
        "",
        *_pipes(heads, body),
        "",
    ]
    return "\n".join(lines)


def _score_table(rows: Sequence[Row], heads: Sequence[str], names: Sequence[str]) -> list[str]:
    body = [[*_who(row), *(_shown(row.cells.get(n, EMPTY)) for n in names)] for row in rows]
    return _pipes(["method", "precision", "device", "seeds", *heads], body)


def _who(row: Row) -> list[str]:
    return [
        *(part or _ABSENT for part in row.key),
        _ABSENT if row.seeds is None else f"{row.seeds}",
    ]


def _name(row: Row) -> str:
    return f"{row.key.label} {row.key.precision} on {row.key.device}"


def _pipes(heads: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    rule = ["---"] * 3 + ["---:"] * (len(heads) - 3)
    rows = [heads, rule, *body]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cost(row: Row) -> list[str]:
    return [
        _significant(row.training_hours),
        _significant(row.images_per_second),
        "" if row.trainable is None else str(row.trainable),
    ]


def _shown(cell: Cell) -> str:
    if cell.mean is None:
        return _ABSENT
    return _percent(cell.mean) + ("" if cell.std is None else f" ± {_percent(cell.std)}")


def _percent(fraction: float | None) -> str:
    if fraction is None:
        return ""
    text = f"{100 * fraction:.2f}"
    return "0.00" if text == "-0.00" else text


def _significant(value: float | None) -> str:
    """Return four significant digits, without an exponent."""
    if value is None:
        return ""
    return np.format_float_positional(value, precision=4, fractional=False, unique=False, trim="-")
