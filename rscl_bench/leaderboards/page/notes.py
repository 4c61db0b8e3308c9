"""Says in a few words what is particular about a row."""

from collections.abc import Iterator
from typing import NamedTuple

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.comparisons import LEAST_SEEDS
from rscl_bench.leaderboards.machines import machine_of
from rscl_bench.leaderboards.rows import Row


class Note(NamedTuple):
    """A note about a row: the word in the table, and its meaning."""

    word: str
    meaning: str


def notes_of(board: Board, row: Row) -> Iterator[Note]:
    """Yield the notes about a row.

    Args:
        board: The leaderboard.
        row: A row of it.
    """
    if row.reference == "lower":
        yield Note("reference", "Nothing was trained; the scores are the same after every task.")
        return
    if row.reference == "upper":
        yield Note("reference", "Trained on all tasks at once: an upper reference by custom.")
    if len(row.runs) < LEAST_SEEDS:
        yield Note("few seeds", f"Fewer than {LEAST_SEEDS} seeds: no comparison and no rank.")
    machines = {machine_of(run.record) for run in row.runs.values()}
    if len(machines) > 1:
        yield Note(f"{len(machines)} machines", "The seeds ran on several machines.")
    records = [run.record for run in row.runs.values()]
    if any(record.identity.init for record in records):
        yield Note("initial weights", "The encoder started from a file of weights.")
    if any(record.parent for record in records):
        yield Note("extended", "The runs continue other runs.")
    if any(not probe_known(board, row, probe.name) for probe in board.layout.probes):
        yield Note("images not known", "No image scores and no stored interval over test images.")


def probe_known(board: Board, row: Row, probe: str) -> bool:
    """Return whether the interval over test images is known, or needs not be."""
    contrast = row.contrast(probe)
    return contrast is None or contrast in board.known
