"""Leaderboards as CSV and as Markdown; the same records give the same bytes."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np

from rscl_bench.leaderboard.collect import GroupKey, LoadedRecord, RowKey
from rscl_bench.leaderboard.comparisons import LEAST_SEEDS, Comparison, ranks
from rscl_bench.leaderboard.image_intervals import Contrast, Intervals
from rscl_bench.leaderboard.rows import (
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
from rscl_bench.leaderboard.statistics import RESAMPLES, Interval
from rscl_bench.results.schema import ProbeRecord, RunRecord

_ABSENT = "–"
_TEXT = ("method", "precision", "device", "separated above")
_COST_FIELDS = (
    "training_hours",
    "images_per_second",
    "trainable_parameters",
    "gflops_with_gradient",
    "gflops_without_gradient",
)


@dataclass(frozen=True)
class Board:
    """All that one leaderboard shows.

    Attributes:
        key: What its records share.
        loaded: Its records.
        rows: In the order of the table.
        known: Intervals over test images.
        compared: Pairs of rows.
    """

    key: GroupKey
    loaded: Sequence[LoadedRecord]
    rows: Sequence[Row]
    known: Mapping[Contrast, Intervals]
    compared: Sequence[Comparison]

    @property
    def layout(self) -> RunRecord:
        """Any of the records, for tasks and probes."""
        return self.loaded[0].record

    @cached_property
    def ranks(self) -> dict[tuple[str, RowKey], int]:
        """By probe and row; see `ranks`."""
        return ranks(self.rows, self.compared)

    @cached_property
    def setting(self) -> tuple[str, ...] | None:
        """Precision and device if all trained rows share them."""
        settings = {row.key[1:] for row in self.rows if row.reference != "lower"}
        return settings.pop() if len(settings) == 1 else None

    def bootstrap_interval(self, row: Row, probe: str, kind: str) -> Interval | None:
        """Return the interval over test images of a row's last score, None if not known."""
        contrast = row.contrast(probe)
        intervals = self.known.get(contrast) if contrast else None
        return intervals[KINDS.index(kind)] if intervals else None


def csv_table(board: Board) -> str:
    """Return the table for programs: percent with two decimals, empty where undefined.

    Returns:
        Text with line feeds as newlines; each score column is split into the parts of `Cell`.
    """
    names = columns(board.layout)
    probes = [probe.name for probe in board.layout.probes]
    last = {
        (probe, kind): score_column(len(board.layout.tasks), probe, kind)
        for probe, kind in product(probes, KINDS)
    }
    heads = ["method", "precision", "device", "seeds", "reference"]
    heads += [f"{probe}.rank" for probe in probes]
    heads += [f"{name}.{part}" for name in names for part in Cell._fields]
    heads += [f"{name}.image_{end}" for name in last.values() for end in Interval._fields]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*heads, *_COST_FIELDS])
    for row in board.rows:
        ranked = [board.ranks.get((probe, row.key), "") for probe in probes]
        values = [v for name in names for v in row.cells.get(name, EMPTY)]
        for place in last:
            values += board.bootstrap_interval(row, *place) or (None, None)
        seeds = "" if row.seeds is None else row.seeds
        shown = [seeds, row.reference or "", *ranked, *map(_percent, values)]
        writer.writerow([*row.key, *shown, *_cost(row)])
    return text.getvalue()


def markdown_table(board: Board) -> str:
    """Return the table for readers: a header that says what the numbers are, then the tables."""
    sections = [_header(board)]
    sections += [_probe_section(board, probe) for probe in board.layout.probes]
    if any(probe.task is not None for probe in board.layout.probes):
        sections.append(_continual_section(board))
    sections.append(_cost_section(board))
    return "\n".join(sections)


def _header(board: Board) -> str:
    key, layout = board.key, board.layout
    stream = " → ".join(f"T{t} {task.name}" for t, task in enumerate(layout.tasks, 1))
    edition = (
        "real archives"
        if key.edition == "real"
        else "**sketch**: synthetic archives; the numbers say nothing about the real data"
    )
    changed = {
        f"{n}={json.dumps(v)}" for i in board.loaded for n, v in i.protocol_overrides().items()
    }
    overridden = f", with {', '.join(sorted(changed))}" if changed else ""
    versions = ", ".join(sorted({item.record.identity.code for item in board.loaded}))
    lines = [
        f"# {key.scenario}: protocol {key.protocol}",
        "",
        "Built from run records by rscl-bench; not to be edited.",
        "",
        f"- Scenario: {key.scenario}, version {key.version}: {stream}",
        f"- Edition: {edition}",
        f"- Protocol: {key.protocol} (digest {key.protocol_digest}){overridden}",
        *([f"- Trained in {board.setting[0]} on {board.setting[1]}"] if board.setting else []),
        f"- Code: rscl-bench {versions}",
        "- Numbers: micro-mAP and macro-mAP in % on the test split of each probe after each task, "
        "mean over seeds ± half the width of the 95 % t interval of that mean, nothing after the "
        f"mean for one seed; {_ABSENT} is undefined or not known",
        "- Test images: in brackets the 95 % percentile bootstrap interval of the mean over seeds, "
        f"{RESAMPLES:,} resamples of the test images, the same for all rows. It is the spread over "
        "images with the seeds as they are; ± is the spread over seeds with the images as they are",
        f"- Seeds: {_seeds_line(board)}",
        "- Rank: 1 + the number of methods that are separated above, by micro-mAP after the last "
        "task. Two methods are separated if both 95 % intervals of their difference exclude 0 on "
        "the same side: over seeds (paired t, common seeds) and over test images (paired "
        "bootstrap). So methods that nothing separates share a rank, and a method whose seeds "
        "differ much may rank above one with a higher mean. The intervals are per pair, not "
        f"corrected for the number of pairs. No rank: fewer than {LEAST_SEEDS} seeds, or a pair of "
        "methods that could not be compared. Ranks are within one precision and device",
        "- References, without a rank: `random-encoder` is the encoder before any training and "
        "`pixel-statistics` the mean and deviation of each band, so both are the same after every "
        f"task{_upper(board)}",
        *_unknown_line(board),
        "",
    ]
    return "\n".join(lines)


def _upper(board: Board) -> str:
    names = sorted({f"`{row.key.label}`" for row in board.rows if row.reference == "upper"})
    return (
        f"; {', '.join(names)}: trained on all tasks at once, an upper reference" if names else ""
    )


def _seeds_line(board: Board) -> str:
    asked = board.layout.identity.setting("seeds")
    short = [
        f"{_name(board, row)} ({row.seeds})"
        for row in board.rows
        if row.seeds is not None and row.seeds < asked
    ]
    missing = f"; fewer have {', '.join(short)}" if short else ""
    return f"the protocol asks for {asked} per row{missing}"


def _unknown_line(board: Board) -> list[str]:
    probes = [probe.name for probe in board.layout.probes]
    unknown = [
        _name(board, row)
        for row in board.rows
        if any((own := row.contrast(p)) and own not in board.known for p in probes)
    ]
    if not unknown:
        return []
    return [
        "- **Not known** over test images, since the image scores were neither beside the records "
        f"nor were their intervals stored: {', '.join(unknown)}"
    ]


def _probe_section(board: Board, probe: ProbeRecord) -> str:
    layout = board.layout
    domain = "outside all tasks" if probe.task is None else f"domain of task {probe.task}"
    lines = [
        f"## Probe {probe.name}",
        "",
        f"{probe.probe}, {probe.test_tiles} test tiles, {probe.labels} labels, {domain}.",
        "",
    ]
    counted = layout.scores[0][probe.name].test.macro_labels
    titles = {"micro": "micro-mAP", "macro": f"macro-mAP (over {counted} labels with positives)"}
    tasks = range(1, len(layout.tasks) + 1)
    heads = [f"T{t} {layout.tasks[t - 1].name}" for t in tasks]
    extra = OUTSIDE_METRICS[1:] if probe.task is None else ()  # the final score is the last task's
    for kind in KINDS:
        names = [score_column(t, probe.name, kind) for t in tasks]
        others = [outside_column(probe.name, metric, kind) for metric in extra]
        body = []
        for row in board.rows:
            rank = str(board.ranks.get((probe.name, row.key), _ABSENT))
            images = _bracketed(board.bootstrap_interval(row, probe.name, kind))
            scores = [*_cells(row, names), images, *_cells(row, others)]
            body.append([rank, *_who(board, row), *scores])
        shown = ["rank", *_who_heads(board), *heads, f"T{len(heads)}, test images"]
        shown += map(_words, extra)
        if kind != "micro":  # ranks are by micro-mAP
            shown, body = shown[1:], [cells[1:] for cells in body]
        lines += [f"### {titles[kind]}", "", *_pipes(shown, body), ""]
    lines += ["### Which methods are separated, by micro-mAP", "", *_separations(board, probe), ""]
    return "\n".join(lines)


def _separations(board: Board, probe: ProbeRecord) -> list[str]:
    own = [c for c in board.compared if c.probe == probe.name and c.kind == "micro"]
    judged = [one for one in own if one.separated is not None]
    below: dict[RowKey, list[RowKey]] = {}
    for one in judged:
        if one.above is not None:
            below.setdefault(one.above, []).append(one.other if one.above == one.row else one.row)
    lines = [
        f"{sum(map(len, below.values()))} of {len(judged)} pairs, upper references included. All "
        "pairs, and macro-mAP: [comparisons.csv](comparisons.csv).",
    ]
    shown = [row for row in board.rows if row.key in below]
    body = [
        [*_who(board, row), ", ".join(r.key.label for r in board.rows if r.key in below[row.key])]
        for row in shown
    ]
    return [*lines, "", *_pipes([*_who_heads(board), "separated above"], body)] if body else lines


def _continual_section(board: Board) -> str:
    lines = ["## Continual metrics", "", "Over the probes of the tasks' domains, in points.", ""]
    heads = [*_who_heads(board), *map(_words, DOMAIN_METRICS)]
    for kind in KINDS:
        names = [domain_column(metric, kind) for metric in DOMAIN_METRICS]
        body = [[*_who(board, row), *_cells(row, names)] for row in _trained(board)]
        lines += [f"### {kind}-mAP", "", *_pipes(heads, body), ""]
    return "\n".join(lines)


def _cost_section(board: Board) -> str:
    body = [[*_who(board, row), *_cost(row)] for row in _trained(board)]
    lines = [
        "## Cost",
        "",
        "Training only, mean over seeds; compare times within one device.",
        "",
        *_pipes([*_who_heads(board), *map(_words, _COST_FIELDS)], body),
        "",
    ]
    return "\n".join(lines)


def _trained(board: Board) -> list[Row]:
    return [row for row in board.rows if row.reference != "lower"]


def _named(board: Board, row: Row) -> tuple[str, ...]:
    """Return what names a row; precision and device only where they tell trained rows apart."""
    return row.key[:1] if board.setting else row.key


def _who(board: Board, row: Row) -> list[str]:
    seeds = _ABSENT if row.seeds is None else f"{row.seeds}"
    return [*(part or _ABSENT for part in _named(board, row)), seeds]


def _name(board: Board, row: Row) -> str:
    return " ".join(part for part in _named(board, row) if part)


def _who_heads(board: Board) -> list[str]:
    return ["method", "seeds"] if board.setting else ["method", "precision", "device", "seeds"]


def _pipes(heads: Sequence[str], body: Iterable[Sequence[str]]) -> list[str]:
    rules = ["---" if head in _TEXT else "---:" for head in heads]
    rows = [heads, rules, *body]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]


def _words(name: str) -> str:
    return name.replace("_", " ")


def _cost(row: Row) -> list[str]:
    return [
        _significant(row.training_hours),
        _significant(row.images_per_second),
        "" if row.trainable is None else str(row.trainable),
        *(_significant(value) for value in row.gflops or (None, None)),
    ]


def _cells(row: Row, names: Iterable[str]) -> list[str]:
    return [_shown(row.cells.get(name, EMPTY)) for name in names]


def _shown(cell: Cell) -> str:
    if cell.mean is None:
        return _ABSENT
    return _percent(cell.mean) + ("" if cell.ci95 is None else f" ± {_percent(cell.ci95)}")


def _bracketed(interval: Interval | None) -> str:
    if interval is None:
        return _ABSENT
    return f"[{_percent(interval.low)}, {_percent(interval.high)}]"


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
