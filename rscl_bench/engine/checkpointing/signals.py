"""Signals that end a run: a step that has begun is finished first, and a checkpoint written."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, a polite kill, and what batch systems can be asked to send before they take a node away.
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


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
        """Take signals for a block; whoever had them takes them back.

        Only a process's main thread gets signals: in another, a run has no say in its end.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._take) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
