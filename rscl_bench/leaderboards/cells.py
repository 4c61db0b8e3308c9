"""Makes the texts of cells that the tables for readers share."""

from collections.abc import Sequence

import pandas as pd

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.formats import ABSENT, percent
from rscl_bench.leaderboards.rows import Row
from rscl_bench.leaderboards.statistics import Interval


def means(board: Board, rows: Sequence[Row], column: str) -> list[str]:
    """Return ``mean ± half the width of the t interval`` of rows; only the mean for one seed.

    Args:
        board: The leaderboard.
        rows: Rows of the leaderboard.
        column: Column without its part, such as ``T1.ucmerced.micro``.
    """
    by_part = [board.means[f"{column}.{part}"].to_dict() for part in ("mean", "ci95")]
    return [
        percent(by_part[0][row.key])
        + ("" if pd.isna(by_part[1][row.key]) else f" ± {percent(by_part[1][row.key])}")
        for row in rows
    ]


def bracketed(interval: Interval | None) -> str:
    """Return an interval of fractions in percent, in brackets; `ABSENT` if it is not known."""
    if interval is None:
        return ABSENT
    return f"[{percent(interval.low)}, {percent(interval.high)}]"


def rank_cell(board: Board, row: Row, probe: str) -> str:
    """Return the rank of a row; `ABSENT` without a rank."""
    rank = board.ranks[probe][row.key] if probe in board.ranks else None
    return ABSENT if rank is None or pd.isna(rank) else f"{rank:.0f}"


def words(name: str) -> str:
    """Return the name of a metric or a cost for readers."""
    return name.replace("_", " ")
