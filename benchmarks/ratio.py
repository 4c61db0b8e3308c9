"""Ratios of two pieces of work that take turns, so a drift of the machine's speed affects both."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from rich.console import Console
from rich.table import Table


class Ratio(NamedTuple):
    """A measured ratio, round by round, and its target.

    Attributes:
        part: The module of the measurement.
        name: Numerator and denominator.
        rounds: The ratio of every round.
        least: Lower bound of the target for the median; None without a lower bound.
        most: Upper bound of the target for the median; None without an upper bound.
        note: Absolute figures and conditions, for scale.
    """

    part: str
    name: str
    rounds: list[float]
    least: float | None = None
    most: float | None = None
    note: str = ""

    @property
    def middle(self) -> float:
        """The median over rounds."""
        return median(self.rounds)

    @property
    def met(self) -> bool | None:
        """Whether the median meets the target; None without a target."""
        if self.least is None and self.most is None:
            return None
        above = self.least is None or self.middle >= self.least
        return above and (self.most is None or self.middle <= self.most)

    def as_json(self) -> dict[str, Any]:
        """Return all fields, the median and whether the target is met."""
        return {**self._asdict(), "median": self.middle, "met": self.met}


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def in_turn(
    first: Callable[[], object], second: Callable[[], object], rounds: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of two pieces of work that take turns, after one warm-up of each."""
    first()
    second()
    times = [(seconds_of(first), seconds_of(second)) for _ in range(rounds)]
    return [a for a, _ in times], [b for _, b in times]


def over(above: list[float], below: list[float]) -> list[float]:
    """Return the ratio of every round."""
    return [a / b for a, b in zip(above, below, strict=True)]


def milliseconds(times: list[float], count: int) -> str:
    """Return the median time per item, as text."""
    return f"{1000 * median(times) / count:.3g} ms"


def show(ratios: list[Ratio]) -> None:
    """Print ratios as a table."""
    table = Table("ratio", "median", "rounds", "wanted", "met", "for scale")
    for ratio in ratios:
        wanted = f"≥ {ratio.least:g}" if ratio.least is not None else ""
        wanted = f"≤ {ratio.most:g}" if ratio.most is not None else wanted
        low, high = min(ratio.rounds), max(ratio.rounds)
        met = {None: "", True: "yes", False: "no"}[ratio.met]
        cells = (f"{ratio.middle:.3g}", f"{low:.3g} to {high:.3g}", wanted, met, ratio.note)
        table.add_row(ratio.name, *cells)
    Console().print(table)
