"""Gives the rows of a leaderboard their colours and their numbers in the page."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from rscl_bench.leaderboards.board import Board
from rscl_bench.leaderboards.comparisons import LEAST_SEEDS
from rscl_bench.leaderboards.rows import Row

#: Number of colours. Further methods are drawn in grey until the pointer is on them.
COLOURS = 8


@dataclass(frozen=True)
class Series:
    """A row of the leaderboard in the charts.

    Attributes:
        row: The row.
        number: Position of the row in the table.
        label: Name of the row.
        colour: Class of its colour: ``s0`` to ``s7`` for the first methods, ``sx`` for others,
            ``ref`` for references.
        means: Numbers of the row as fractions, by column of ``leaderboard.csv``.
    """

    row: Row
    number: int
    label: str
    colour: str
    means: Mapping[str, float]

    @property
    def trained(self) -> bool:
        """Whether the row was trained."""
        return self.row.reference != "lower"

    @property
    def few(self) -> bool:
        """Whether the row has too few seeds for a comparison."""
        return self.row.seeds is not None and self.row.seeds < LEAST_SEEDS

    @property
    def coloured(self) -> bool:
        """Whether the row has a colour of its own."""
        return self.colour not in ("sx", "ref")

    def percent(self, column: str, part: str) -> float:
        """Return a number in percent as the tables show it; NaN if undefined.

        Args:
            column: Column without its part, such as ``T1.ucmerced.micro``.
            part: ``mean``, ``std`` or ``ci95``.
        """
        return shown_percent(self.means[f"{column}.{part}"])

    def ends(self, column: str) -> tuple[float, float, float]:
        """Return the mean and both ends of the t interval in percent; all the mean without one."""
        mean, half = self.percent(column, "mean"), self.percent(column, "ci95")
        half = 0.0 if math.isnan(half) else half
        return mean, mean - half, mean + half

    def short(self, longest: int = 28) -> str:
        """Return the name for a chart, with an ellipsis if it is long."""
        return self.label if len(self.label) <= longest else f"{self.label[: longest - 1]}…"


def shown_percent(fraction: float) -> float:
    """Return a fraction in percent with the two decimals that the tables show."""
    return round(100 * float(fraction), 2)


def all_series(board: Board) -> list[Series]:
    """Return the rows in the order of the table.

    Methods with enough seeds get the colours first, in the order of the table.
    """
    methods = [row for row in board.rows if row.reference is None]
    enough = [row.key for row in methods if len(row.runs) >= LEAST_SEEDS]
    others = [row.key for row in methods if row.key not in enough]
    colours = {key: f"s{place}" for place, key in enumerate([*enough, *others][:COLOURS])}
    means = board.means.to_dict("index")
    return [
        Series(
            row,
            number,
            board.label(row),
            "ref" if row.reference else colours.get(row.key, "sx"),
            {str(column): float(value) for column, value in means[row.key].items()},
        )
        for number, row in enumerate(board.rows)
    ]
