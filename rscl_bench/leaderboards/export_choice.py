"""Chooses the leaderboard, the probe and the score that an export or a figure shows."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from rscl_bench.errors import SpecError, unknown
from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.build import boards_of
from rscl_bench.leaderboards.rows import Row
from rscl_bench.results.schema import ProbeRecord

Kind = Literal["micro", "macro"]


def choose_board(
    sources: Path | Iterable[Path], scenario: str | None = None, protocol: str | None = None
) -> Board:
    """Return the one leaderboard of records that is asked for.

    Args:
        sources: One folder or record file, or several of them.
        scenario: Name of the scenario; may be left out if the records have one scenario.
        protocol: Name of the protocol, or the leaderboard's folder below the scenario's, such as
            ``cpu-0.2.0``; may be left out if the scenario's records have one leaderboard.

    Raises:
        SpecError: If no leaderboard, or more than one, is meant.
        ArtefactError: If the records make no leaderboard.
    """
    boards = {str(folder): board for folder, board in boards_of(sources).items()}
    if scenario is not None:
        names = {board.key.scenario for board in boards.values()}
        boards = {f: b for f, b in boards.items() if b.key.scenario == scenario}
        if not boards:
            raise unknown("scenario among these records", scenario, names)
    if protocol is not None:
        found = {f: b for f, b in boards.items() if protocol == Path(f).name} or {
            f: b for f, b in boards.items() if protocol == b.key.protocol
        }
        if not found:
            known = {b.key.protocol for b in boards.values()} | {Path(f).name for f in boards}
            raise unknown("protocol among these records", protocol, known)
        boards = found
    if len(boards) > 1:
        raise SpecError(
            f"These records make {len(boards)} leaderboards ({', '.join(boards)}); choose one with "
            "--scenario and --protocol, or name fewer records."
        )
    return next(iter(boards.values()))


def choose_probes(board: Board, names: Iterable[str]) -> list[ProbeRecord]:
    """Return probes of a leaderboard in its order; all of them if no name is given.

    Raises:
        SpecError: If a name is unknown.
    """
    probes = {probe.name: probe for probe in board.layout.probes}
    wanted = list(names)
    for name in wanted:
        if name not in probes:
            raise unknown("probe", name, probes)
    return [probe for name, probe in probes.items() if not wanted or name in wanted]


def choose_rows(board: Board, names: Iterable[str]) -> list[Row]:
    """Return trained rows of a leaderboard in its order; all of them if no name is given.

    Args:
        board: The leaderboard.
        names: Methods, as in the leaderboard, overrides included. A method that has rows in two
            precisions names both.

    Raises:
        SpecError: If a name is unknown.
    """
    trained = [row for row in board.rows if row.reference != "lower"]
    known = {row.key.method for row in trained} | {board.label(row) for row in trained}
    wanted = list(names)
    for name in wanted:
        if name not in known:
            raise unknown("method", name, known)
    return [
        row
        for row in trained
        if not wanted or row.key.method in wanted or board.label(row) in wanted
    ]


def board_title(board: Board) -> str:
    """Return what all values of a leaderboard share, in one line."""
    key = board.key
    scenario = f"{key.scenario}-v{key.version}"
    return f"{scenario}, {key.edition}, protocol {key.protocol}, version {key.code}"


def percentage(board: Board, row: Row, column: str) -> float:
    """Return a value of a row in percent; NaN if undefined.

    Args:
        board: The leaderboard.
        row: One of its rows.
        column: A column of ``board.means``, such as ``T4.ucmerced.micro.mean``.
    """
    number = [known.key for known in board.rows].index(row.key)
    return 100 * float(board.means[column].to_numpy(dtype=float)[number])
