"""Shows what a row is made of: seeds, records, recipe, and the command that repeats it."""

import json
import shlex
from collections.abc import Iterator
from typing import Any

from markupsafe import Markup

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.costs import training_hours
from rscl_bench.leaderboards.formats import percent, significant
from rscl_bench.leaderboards.machines import machine_name, machine_of
from rscl_bench.leaderboards.markdown_header import MARK_MEANINGS
from rscl_bench.leaderboards.page.markup import element, joined
from rscl_bench.leaderboards.page.notes import notes_of
from rscl_bench.leaderboards.rows import Row
from rscl_bench.results.marks import SELF_RUN
from rscl_bench.results.schema import RunRecord


def details_of(board: Board, row: Row) -> Markup:
    """Return the content that a row opens to.

    Args:
        board: The leaderboard.
        row: A row of it.
    """
    notes = [
        element("p", element("b", note.word), f": {note.meaning}") for note in notes_of(board, row)
    ]
    if row.reference == "lower":
        sources = (
            "Measured in these runs, one for each seed."
            if row.after is not None
            else ("Computed from the mean and deviation of each band; equal in all runs.")
        )
        return joined([*notes, element("p", sources), _runs(row)])
    first = next(iter(row.runs.values())).record
    title = first.identity.method.get("title")
    return joined(
        [
            *([element("p", title)] if isinstance(title, str) else []),
            *notes,
            element("p", MARK_MEANINGS[row.mark or SELF_RUN].replace("the row", "it"), "."),
            _runs(row),
            element("h4", "Command"),
            *_command(row, first),
            element("h4", "Recipe"),
            element("pre", *(element("span", n) for n in recipe_lines(first)), class_="recipe"),
        ]
    )


def _runs(row: Row) -> Markup:
    """Return a table of the row's runs with their records."""
    first = next(iter(row.runs.values())).record
    probes = [] if row.after is None else [probe.name for probe in first.probes]
    trained = row.reference != "lower"
    heads = ["seed", "record", *(f"{probe}, micro-mAP" for probe in probes)]
    heads += ["hours", "machine"] if trained else []
    lines = [
        element(
            "tr",
            element("th", str(seed), scope="row"),
            element("td", element("code", run.record.id)),
            *(element("td", _final(run.record, row, probe)) for probe in probes),
            *(element("td", cell) for cell in (_machine(run.record) if trained else [])),
        )
        for seed, run in sorted(row.runs.items())
    ]
    head = element("tr", *(element("th", name, scope="col") for name in heads))
    return element("table", element("thead", head), element("tbody", *lines), class_="runs")


def _final(record: RunRecord, row: Row, probe: str) -> str:
    score = record.scores[row.after or 0].get(probe)
    return percent(None if score is None else score.test.micro)


def _machine(record: RunRecord) -> list[str]:
    return [significant(training_hours(record)), machine_name(machine_of(record))]


def _command(row: Row, record: RunRecord) -> Iterator[Markup]:
    """Yield the command that repeats the runs, and what else it needs."""
    identity = record.identity
    if identity.parent is not None:
        yield element(
            "p",
            f"These runs continue others (the first continues run {identity.parent.run}): "
            "see rscl-bench extend.",
        )
        return
    yield element("pre", element("code", repeating_command(row)))
    needs = [f"rscl-bench {identity.code}", f"{identity.edition} archives"]
    if identity.plugins:
        needs.append(f"the plugins {', '.join(identity.plugins)}, in Python")
    if identity.init is not None:
        needs.append(f"the file of initial weights with SHA-256 {identity.init}")
    yield element("p", f"Needs {', '.join(needs)}.")


def repeating_command(row: Row) -> str:
    """Return the command line that repeats the runs of a row.

    Args:
        row: A trained row whose runs began with their first task.
    """
    identity = next(iter(row.runs.values())).record.identity
    words = ["rscl-bench", "sweep", "--scenario", identity.scenario.name]
    words += ["--protocol", identity.protocol_name, "--methods", str(identity.method["name"])]
    words += ["--seeds", ",".join(map(str, sorted(row.runs)))]
    for key, value in sorted(identity.overrides.items()):
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    if identity.init is not None:
        words += ["--init", "FILE"]
    return shlex.join(words)


def recipe_lines(record: RunRecord) -> list[str]:
    """Return the resolved values of a run's method, such as ``objective.mask_ratio = 0.75``."""
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in _flat(record.identity.method)
        if key != "title"
    ]


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, inner in value.items():
            yield from _flat(inner, f"{key}.{name}" if key else name)
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        for number, inner in enumerate(value):
            name = inner.get("name", number) if isinstance(inner, dict) else number
            yield from _flat(inner, f"{key}.{name}")
    else:
        yield key, value
