"""Signals that end a run: a step that has begun is finished first, and a checkpoint written."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, a polite kill, and what batch systems can be asked to send before they take a node away.
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to end; its message says from where the run will go on."""

    def __init__(self, number: int, where: str):
        super().__init__(where)
        self.status = 128 + number


class Interruption:
    """Knows whether the run was asked to end.

    Attributes:
        stepping: Whether a step is being done, which is finished before the run ends.
        asked: Number of the signal that came, None if none did.
    """

    def __init__(self) -> None:
        self.stepping = False
        self.asked: int | None = None

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.asked is not None:  # a second one does not wait; files are whole at any moment
            os._exit(128 + number)
        self.asked = number
        if not self.stepping:
            raise Interrupted(number, "the last checkpoint, or the beginning")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Take signals for a block; whoever had them takes them back."""
        before = {number: signal.signal(number, self._take) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
