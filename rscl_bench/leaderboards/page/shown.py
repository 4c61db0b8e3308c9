"""Reads the numbers that the page shows and draws: those of the tables, rounded alike."""

import math

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.rows import Row


def percent_of(fraction: float | None) -> float:
    """Return a fraction in percent as the tables show it, with two decimals; NaN for None."""
    return math.nan if fraction is None else round(100 * float(fraction), 2)


def part_of(board: Board, row: Row, column: str, part: str) -> float:
    """Return a number of a row in percent, with two decimals; NaN if undefined.

    Args:
        board: The leaderboard.
        row: A row of it.
        column: Column without its part, such as ``T1.ucmerced.micro``.
        part: ``mean``, ``std`` or ``ci95``.
    """
    return percent_of(board.means[f"{column}.{part}"][row.key])


def ends_of(board: Board, row: Row, column: str) -> tuple[float, float, float]:
    """Return the mean and both ends of the t interval in percent; without one all are the mean."""
    mean, half = (part_of(board, row, column, part) for part in ("mean", "ci95"))
    half = 0.0 if math.isnan(half) else half
    return mean, mean - half, mean + half
