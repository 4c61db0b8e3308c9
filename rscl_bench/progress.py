"""How long work, such as packing and training, reports its progress."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

#: Called with what is being done, how much of it is done, and how much there is.
Progress = Callable[[str, int, int], None]


def silent(_what: str, _done: int, _total: int) -> None:
    """Report nothing."""


class Reporter(Protocol):
    """What is told of a run's progress."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Report how much of something, such as packing or the steps of a task, is done."""

    def message(self, text: str) -> None:
        """Report one line."""


@runtime_checkable
class WholeRunReporter(Protocol):
    """A reporter that also shows how far the whole run is: all tasks, and all probings."""

    def whole(self, share: float, seconds_left: float) -> None:
        """Report the share of the time that is over, from 0 to 1, and the seconds left."""


class SilentReporter:
    """Reports nothing."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Report nothing."""

    def message(self, text: str) -> None:
        """Report nothing."""
