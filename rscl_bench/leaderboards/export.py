"""Exports a leaderboard as a table for a paper, or its scores as a long table."""

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from rscl_bench.errors import SpecError, unknown
from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.build import boards_of
from rscl_bench.leaderboards.columns import domain_column, outside_column, score_column
from rscl_bench.leaderboards.comparisons import compared_rows
from rscl_bench.leaderboards.export_choice import Kind, choose_probes, choose_rows, percentage
from rscl_bench.leaderboards.export_costs import hours_of, operations_of
from rscl_bench.leaderboards.formats import ABSENT, significant, two_decimals
from rscl_bench.leaderboards.frame import records_frame
from rscl_bench.leaderboards.keys import RowKey
from rscl_bench.leaderboards.rows import Row
from rscl_bench.results.schema import ProbeRecord

Format = Literal["latex", "markdown", "csv-long"]
FORMATS: tuple[Format, ...] = get_args(Format)
#: Names of columns, besides ``T1``, ``T2`` and so on.
COLUMNS = (
    "rank",
    "seeds",
    "tasks",
    "final",
    "mean-over-tasks",
    "gain-over-random",
    "final-average",
    "average-incremental",
    "backward-transfer",
    "forgetting",
    "forward-transfer",
    "operations",
    "hours",
)
_OF_PROBE = ("mean-over-tasks", "gain-over-random")
_OF_DOMAINS = COLUMNS[6:11]
_GROUP_OF_DOMAINS = "domains"


@dataclass(frozen=True)
class Cell:
    """One value of a table.

    Attributes:
        mean: The number as text; `ABSENT` without one.
        half: Half the width of the 95 % t interval over seeds as text; empty without one.
        bold: Whether the row is separated above all other trained rows of the table.
    """

    mean: str
    half: str = ""
    bold: bool = False


@dataclass(frozen=True)
class ExportColumn:
    """One column of a table: its group (a probe, or the domains), its title, and a cell per row."""

    group: str
    title: str
    cells: Sequence[Cell]


@dataclass(frozen=True)
class ExportTable:
    """A table for a paper.

    Attributes:
        names: Names of the rows.
        references: Number of rows at the top that are lower references.
        columns: The columns.
        caption: What the table shows, in sentences.
        label: A name for the table, such as ``scene4-v2-cpu``.
    """

    names: Sequence[str]
    references: int
    columns: Sequence[ExportColumn]
    caption: str
    label: str


@dataclass(frozen=True)
class _Maker:
    """Makes the columns of a table from a leaderboard."""

    board: Board
    rows: Sequence[Row]
    probes: Sequence[ProbeRecord]
    kind: Kind
    best: dict[str, RowKey | None] = field(default_factory=dict)

    def columns(self, names: Sequence[str]) -> list[ExportColumn]:
        """Return the columns: of the rows, of each probe, of the domains, of costs."""
        made = [c for n in names if n in ("rank", "seeds") for c in self._of_rows(n)]
        for probe in self.probes:
            made += [c for name in names for c in self._of_probe(name, probe)]
        made += [self._of_domains(name) for name in names if name in _OF_DOMAINS]
        return made + [self._cost(name) for name in names if name in ("operations", "hours")]

    def _of_rows(self, name: str) -> list[ExportColumn]:
        if name == "seeds":
            cells = [Cell(ABSENT if row.seeds is None else f"{row.seeds}") for row in self.rows]
            return [ExportColumn("", "seeds", cells)]
        columns = []
        for probe in self.probes:
            ranks = self.board.ranks.get(probe.name)
            keys = [row.key for row in self.board.rows]
            known = {} if ranks is None else dict(zip(keys, ranks, strict=True))
            own = [known.get(row.key, math.nan) for row in self.rows]
            cells = [Cell(ABSENT if math.isnan(rank) else f"{rank:.0f}") for rank in own]
            title = "rank" if len(self.probes) == 1 else f"rank, {probe.name}"
            columns.append(ExportColumn("", title, cells))
        return columns

    def _of_probe(self, name: str, probe: ProbeRecord) -> list[ExportColumn]:
        tasks = [task.name for task in self.board.layout.tasks]
        last = len(tasks)
        if name == "tasks":
            return [self._after(task, probe, tasks[task - 1]) for task in range(1, last + 1)]
        if name == "final":
            return [self._after(last, probe, "final")]
        if name.startswith("T"):
            return [self._after(int(name[1:]), probe, tasks[int(name[1:]) - 1])]
        if name in _OF_PROBE and probe.task is None:
            column = outside_column(probe.name, name.replace("-", "_"), self.kind)
            return [ExportColumn(probe.name, name.replace("-", " "), self._values(column))]
        return []

    def _after(self, task: int, probe: ProbeRecord, title: str) -> ExportColumn:
        last = task == len(self.board.layout.tasks)
        best = self.best.get(probe.name) if last else None
        column = score_column(task, probe.name, self.kind)
        return ExportColumn(probe.name, title, self._values(column, best))

    def _of_domains(self, name: str) -> ExportColumn:
        column = domain_column(name.replace("-", "_"), self.kind)
        return ExportColumn(_GROUP_OF_DOMAINS, name.replace("-", " "), self._values(column))

    def _cost(self, name: str) -> ExportColumn:
        trained = [row for row in self.rows if row.reference != "lower"]
        if name == "hours":
            values, title = hours_of(trained), "hours"
        else:
            values, title = {row.key: operations_of(row) for row in trained}, "GFLOP per image"
        cells = [Cell(significant(values.get(row.key, math.nan)) or ABSENT) for row in self.rows]
        return ExportColumn("cost", title, cells)

    def _values(self, column: str, best: RowKey | None = None) -> list[Cell]:
        if f"{column}.mean" not in self.board.means:
            return [Cell(ABSENT)] * len(self.rows)
        return [
            Cell(
                two_decimals(percentage(self.board, row, f"{column}.mean")) or ABSENT,
                two_decimals(percentage(self.board, row, f"{column}.ci95")),
                row.key == best,
            )
            for row in self.rows
        ]


def export_table(
    board: Board,
    *,
    probes: Iterable[str] = (),
    methods: Iterable[str] = (),
    kind: Kind = "micro",
    columns: Sequence[str] = (),
) -> ExportTable:
    """Return a leaderboard as a table for a paper.

    Args:
        board: The leaderboard.
        probes: Names of probes; all if empty.
        methods: Names of methods; all if empty. Lower references are always there.
        kind: ``micro`` or ``macro``.
        columns: Some of `COLUMNS`, and ``T2`` for the score after task 2. Empty takes ``tasks`` for
            one probe and ``final`` for several, and ``final-average`` and ``forgetting`` where
            tasks have probes of their domains.

    Raises:
        SpecError: If a name is unknown, or hours of several devices are asked for.
    """
    chosen, trained = choose_probes(board, probes), choose_rows(board, methods)
    keys = {row.key for row in trained}
    rows = [row for row in board.rows if row.reference == "lower" or row.key in keys]
    names = [_column(name, board) for name in columns] or _default_columns(board, chosen)
    best = {probe.name: separated_above_all(board, trained, probe, kind) for probe in chosen}
    scenario = f"{board.key.scenario}-v{board.key.version}"
    return ExportTable(
        names=[board.label(row) for row in rows],
        references=sum(row.reference == "lower" for row in rows),
        columns=_Maker(board, rows, chosen, kind, best).columns(names),
        caption=_caption(board, trained, chosen, kind, names, best),
        label=f"{scenario}-{board.key.protocol}",
    )


def separated_above_all(
    board: Board, rows: Sequence[Row], probe: ProbeRecord, kind: Kind
) -> RowKey | None:
    """Return the row that is separated above all others after the last task; None without one.

    Args:
        board: The leaderboard, whose corrections are for all its pairs.
        rows: The trained rows to compare.
        probe: The probe.
        kind: ``micro`` or ``macro``.
    """
    lines = board.compared
    own = lines[
        (lines["probe"] == probe.name)
        & (lines["score"] == kind)
        & lines["separated"].fillna(False).astype(bool)
    ]
    above = {
        pair if difference > 0 else pair[::-1]
        for pair, difference in zip(compared_rows(own), own["difference"], strict=True)
    }
    for row in rows:
        others = [other.key for other in rows if other is not row]
        if others and all((row.key, other) in above for other in others):
            return row.key
    return None


def long_csv(
    sources: Path | Iterable[Path],
    *,
    scenario: str | None = None,
    protocol: str | None = None,
    probes: Collection[str] = (),
    methods: Collection[str] = (),
    kind: Kind | None = None,
) -> pd.DataFrame:
    """Return the scores of records in long form: rows of ``scores.csv`` that are asked for.

    Args:
        sources: One folder or record file, or several of them.
        scenario: Name of a scenario; all if None.
        protocol: Name of a protocol; all if None.
        probes: Names of probes; all if empty.
        methods: Names of methods; all if empty.
        kind: ``micro`` or ``macro``; both if None.

    Returns:
        A frame with the columns of `records_frame`.

    Raises:
        SpecError: If nothing has a name that is asked for.
        ArtefactError: If the records make no leaderboard.
    """
    boards = boards_of(sources).values()
    frame = records_frame(item.record for board in boards for item in board.loaded)
    wanted: dict[str, Collection[str]] = {
        "scenario": [] if scenario is None else [scenario],
        "protocol": [] if protocol is None else [protocol],
        "probe": probes,
        "method": methods,
    }
    for column, names in wanted.items():
        for name in names:
            if name not in set(frame[column]):
                raise unknown(f"{column} among these records", name, set(frame[column]))
        if names:
            frame = frame[frame[column].isin(list(names))]
    if kind is not None:
        frame = frame[frame["score"] == f"{kind}_map"]
    return frame.reset_index(drop=True)


def _column(name: str, board: Board) -> str:
    tasks = len(board.layout.tasks)
    known = {*COLUMNS, *(f"T{task}" for task in range(1, tasks + 1))}
    if name not in known:
        raise unknown("column", name, known)
    if name in _OF_DOMAINS and all(probe.task is None for probe in board.layout.probes):
        raise SpecError(
            f"Column '{name}' needs probes of the tasks' domains, and {board.key.scenario} has "
            "none; leave the column out."
        )
    return name


def _default_columns(board: Board, probes: Sequence[ProbeRecord]) -> list[str]:
    domains = any(probe.task is not None for probe in board.layout.probes)
    names = ["tasks"] if len(probes) == 1 else ["final"]
    return [*names, *(("final-average", "forgetting") if domains and len(probes) > 1 else ())]


def _caption(
    board: Board,
    trained: Sequence[Row],
    probes: Sequence[ProbeRecord],
    kind: Kind,
    names: Sequence[str],
    best: dict[str, RowKey | None],
) -> str:
    """Return what the table shows, in sentences of plain text."""
    key = board.key
    seeds = sorted({len(row.runs) for row in trained})
    counts = " to ".join(f"{count}" for count in dict.fromkeys((seeds[0], seeds[-1])))
    sentences = [
        f"{key.scenario} version {key.version} ({key.edition} edition), protocol {key.protocol}, "
        f"rscl-bench {key.code}: {kind}-mAP in %, test split; mean of {counts} seeds ± half the "
        "width of the 95 % t interval."
    ]
    if {"tasks", "final", f"T{len(board.layout.tasks)}"} & set(names):
        bold = [board_name for board_name in best.values() if board_name is not None]
        rule = (
            "separated above all other trained rows after the last task (paired over seeds, "
            "corrected after Benjamini and Hochberg for all pairs at 5 %, and over test images)"
        )
        sentences.append(f"Bold: {rule}." if bold else f"No row is {rule}, so none is bold.")
    if "operations" in names:
        sentences.append(
            "Operations are those of a training step of the second task, strategies included."
        )
    if "hours" in names:
        devices = sorted({device for row in trained for device in row.devices})
        sentences.append(f"Hours of training on {', '.join(devices)}.")
    if key.edition == "sketch":
        sentences.append("Small synthetic images: these numbers are no result.")
    return " ".join(sentences)
