"""What a submission changes in a table."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.columns import score_column
from rscl_bench.leaderboards.comparisons import LEAST_SEEDS
from rscl_bench.leaderboards.formats import ABSENT, percent
from rscl_bench.leaderboards.keys import RowKey
from rscl_bench.leaderboards.rows import Row


@dataclass(frozen=True)
class TableDifference:
    """What a submission changes in one table.

    Attributes:
        folder: Folder of the table below the folder of tables.
        added: One line for each new row and probe.
        changed: One line for each published row whose rank changes, or reference whose mean does.
        notes: One sentence for each row with fewer seeds than the protocol asks for.
    """

    folder: Path
    added: list[str]
    changed: list[str]
    notes: list[str]


def difference(
    folder: Path, before: Board | None, after: Board, own: Collection[RowKey]
) -> TableDifference:
    """Return what new rows change in a table.

    Args:
        folder: Folder of the table.
        before: The table without the submission; None if there is none.
        after: The table with the submission.
        own: Keys of the rows of the submission.

    Raises:
        ArtefactError: If the submission adds runs to a row of others, changes a mean of such a row,
            or takes its rank.
    """
    trained = [row for row in after.rows if row.reference != "lower"]
    new = [row for row in trained if row.key in own]
    if before is not None:
        _check_rows(before, after, own)
    return TableDifference(
        folder,
        [line for row in new for line in _added(after, row)],
        [] if before is None else [*_rank_changes(before, after), *_mean_changes(before, after)],
        [*_seed_notes(after, new)],
    )


def _check_rows(before: Board, after: Board, own: Collection[RowKey]) -> None:
    """Refuse a submission that edits rows of others."""
    published = {row.key for row in before.rows if row.reference != "lower"}
    for key in sorted(published & {*own}):
        raise ArtefactError(
            f"The row {' '.join(key)} is published, and a submission adds no run to a row of "
            "others; give the recipe another name and run it."
        )
    for key in sorted(published):
        if not before.means.loc[[key]].equals(after.means.loc[[key], before.means.columns]):
            raise ArtefactError(f"The submission would change the means of row {' '.join(key)}.")
    for probe, ranks in before.ranks.items():
        later = after.ranks.get(probe, pd.Series(index=after.means.index, dtype="float64"))
        held = ranks.dropna()
        for key in sorted(published & {*held.index.to_list()}):
            if pd.isna(later.loc[[key]].iloc[0]):
                raise ArtefactError(
                    f"The submission would take the rank of {' '.join(key)} "
                    f"on probe {probe}; a maintainer has to look at it."
                )


def _added(board: Board, row: Row) -> Iterator[str]:
    tasks = len(board.layout.tasks)
    means = board.means.loc[[row.key]].iloc[0]
    for probe in [probe.name for probe in board.layout.probes]:
        column = score_column(tasks, probe, "micro")
        half = means[f"{column}.ci95"]
        spread = "" if pd.isna(half) else f" ± {percent(half)}"
        ranks = board.ranks.get(probe)
        rank = None if ranks is None else ranks.loc[[row.key]].iloc[0]
        place = "no rank" if rank is None or pd.isna(rank) else f"rank {rank:.0f}"
        yield (
            f"{board.label(row)}, {probe}: {percent(means[f'{column}.mean'])}{spread}, {place}, "
            f"{row.seeds} seeds"
        )


def _rank_changes(before: Board, after: Board) -> Iterator[str]:
    for probe in [probe.name for probe in after.layout.probes]:
        for row in before.rows:
            old, new = (_rank(board, probe, row.key) for board in (before, after))
            if old != new:
                yield f"{before.label(row)}, {probe}: rank {old} → {new}"


def _rank(board: Board, probe: str, key: RowKey) -> str:
    if probe not in board.ranks:
        return ABSENT
    rank = board.ranks[probe].loc[[key]].iloc[0]
    return ABSENT if pd.isna(rank) else f"{rank:.0f}"


def _mean_changes(before: Board, after: Board) -> Iterator[str]:
    """Yield the lower references whose means change: every run measures them."""
    tasks = len(after.layout.tasks)
    for row in before.rows:
        for probe in [probe.name for probe in after.layout.probes]:
            column = f"{score_column(tasks, probe, 'micro')}.mean"
            old, new = (board.means[column].loc[[row.key]].iloc[0] for board in (before, after))
            shown = [f"{100 * mean:.4f}" for mean in (old, new)]
            if shown[0] != shown[1]:  # the sum of equal scores differs in its last bit
                yield f"{before.label(row)}, {probe}: {shown[0]} → {shown[1]}"


def _seed_notes(board: Board, new: Collection[Row]) -> Iterator[str]:
    wanted = board.layout.identity.setting("seeds")
    for row in new:
        if len(row.runs) < wanted:
            yield (
                f"{board.label(row)} has {len(row.runs)} of the {wanted} seeds that the protocol "
                f"asks for; the table says so, and fewer than {LEAST_SEEDS} have no rank"
            )
