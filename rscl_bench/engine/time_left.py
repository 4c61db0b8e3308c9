"""Estimates the time that is left of a whole run: the steps of all tasks, and all probings."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rscl_bench.progress import Reporter, WholeRunReporter

#: Seconds between two estimates.
_SECONDS = 5.0


@dataclass(frozen=True)
class WholeRun:
    """How far a run has come.

    Attributes:
        steps: Steps of every task; of later tasks, the number that tiles, batch and epochs give.
        steps_done: Steps that are done, of all tasks.
        training_seconds: Seconds that these steps took.
        probings: Number of probings of the run, the one before training included.
        probings_done: Probings that are done.
        probing_seconds: Seconds that these probings took.
    """

    steps: Sequence[int]
    steps_done: int
    training_seconds: float
    probings: int
    probings_done: int
    probing_seconds: float

    def seconds_left(self) -> float | None:
        """Return the estimate in seconds; None before the first step."""
        if not self.steps_done or not self.probings_done:
            return None
        step = self.training_seconds / self.steps_done
        probing = self.probing_seconds / self.probings_done
        steps_left = max(0, sum(self.steps) - self.steps_done)
        return steps_left * step + (self.probings - self.probings_done) * probing


class WholeRunClock:
    """Tells a reporter how long the whole run will still take, at most every five seconds."""

    def __init__(self, reporter: Reporter):
        self._reporter = reporter if isinstance(reporter, WholeRunReporter) else None
        self._told = time.monotonic()

    def due(self) -> bool:
        """Return whether an estimate is wanted now."""
        return self._reporter is not None and time.monotonic() - self._told >= _SECONDS

    def tell(self, state: WholeRun) -> None:
        """Report the part of the time that is over, and the seconds that are left."""
        self._told = time.monotonic()
        left = state.seconds_left()
        if self._reporter is not None and left is not None:
            past = state.training_seconds + state.probing_seconds
            self._reporter.whole(past / (past + left) if past + left else 1.0, left)
