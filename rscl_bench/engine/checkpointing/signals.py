"""Signals that end a run, after the current step and its checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rscl_bench.interruption import Interrupted, exit_now, handled_by


class Interruption:
    """Notes the signal that asks a run to end.

    Attributes:
        stepping: Whether a step is in progress; the step ends before the run does.
        signal: Number of the signal that came, None before a signal.
    """

    def __init__(self) -> None:
        self.stepping = False
        self.signal: int | None = None

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            exit_now(number)
        self.signal = number
        if not self.stepping:
            raise Interrupted(number, "the last checkpoint, or the beginning")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Handle the signals within a block; the earlier handlers are restored afterwards."""
        with handled_by(self._handle):
            yield
