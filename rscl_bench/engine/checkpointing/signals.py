"""Signals that end a run, after the current step and its checkpoint."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

#: Ctrl-C, a plain ``kill``, and the signal that batch systems can send before a node is taken away.
SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name)
]


class Interrupted(KeyboardInterrupt):
    """A signal ended the run; the message says where the run will resume."""

    def __init__(self, number: int, where: str):
        super().__init__(where)
        self.status = 128 + number


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
        if self.signal is not None:  # exit at once on a second signal; all writes are atomic
            os._exit(128 + number)
        self.signal = number
        if not self.stepping:
            raise Interrupted(number, "the last checkpoint, or the beginning")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Handle the signals within a block; the earlier handlers are restored afterwards.

        Only the main thread of a process gets signals: in other threads this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
