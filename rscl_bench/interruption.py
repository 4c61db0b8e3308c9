"""Signals that end a command: each becomes an exception, so that ``finally`` blocks run."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType

#: Ctrl-C, a plain ``kill``, the signal that batch systems can send before a node is taken away, a
#: closed terminal, and Ctrl-\.
SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
)
_SHOW_CURSOR = b"\x1b[?25h"

Handler = Callable[[int, FrameType | None], None]


class Interrupted(KeyboardInterrupt):
    """A signal ended the command.

    Attributes:
        signal: Number of the signal.
        where: What the work resumes from; empty if nothing is kept.
        status: Exit status of the process, 128 plus the signal's number.
    """

    def __init__(self, number: int, where: str = ""):
        super().__init__(where)
        self.signal, self.where, self.status = number, where, 128 + number


class SignalWatch:
    """Raises `Interrupted` on the first signal, and ends the process at once on the second.

    Attributes:
        signal: Number of the signal that came; None before a signal.
    """

    def __init__(self) -> None:
        self.signal: int | None = None

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal.

        Raises:
            Interrupted: On the first signal.
        """
        if self.signal is not None:
            exit_now(number)
        self.signal = number
        raise Interrupted(number)


@contextmanager
def raising() -> Iterator[SignalWatch]:
    """Raise `Interrupted` within a block when one of `SIGNALS` comes."""
    watch = SignalWatch()
    with handled_by(watch.handle):
        yield watch


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Handle the `SIGNALS` within a block; the earlier handlers are restored afterwards.

    A signal that the process ignores, as ``nohup`` makes it ignore SIGHUP, stays ignored. Only the
    main thread of a process gets signals: in other threads this does nothing.
    """
    before = changeable()
    for number in before:
        signal.signal(number, handler)
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def changeable() -> dict[int, Callable[[int, FrameType | None], object] | int]:
    """Return the current handlers of those `SIGNALS` that this thread may handle."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    # None is the handler of another language, which Python could not restore.
    return {n: h for n, h in handlers.items() if h is not None and h != signal.SIG_IGN}


def exit_now(number: int) -> None:
    """End the process at once with the status of a signal, and with a visible cursor.

    All writes are atomic, so that no file is damaged.
    """
    with suppress(OSError, ValueError):
        if os.isatty(sys.__stdout__.fileno() if sys.__stdout__ else 1):
            os.write(1, _SHOW_CURSOR)
    os._exit(128 + number)
