"""The training time of every task."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class TaskClock:
    """Measures the seconds of every task's training, with the device synchronised.

    Attributes:
        train_seconds: Seconds of every ended task: its steps, and the work of strategies before
            and after them.
        waited_seconds: Seconds of every ended task in which training waited for tiles.
    """

    def __init__(self, device: torch.device):
        self.train_seconds: list[float] = []
        self.waited_seconds: list[float] = []
        self._device = device
        self._started = 0.0

    def start(self, seconds: float = 0.0) -> None:
        """Start the time of a task.

        Args:
            seconds: Seconds that the task took before an interruption.
        """
        self._started = self._now() - seconds

    def seconds(self) -> float:
        """Return the seconds of the current task so far."""
        return self._now() - self._started

    def stop(self, waited: float) -> None:
        """End the time of a task.

        Args:
            waited: Seconds in which the task waited for tiles.
        """
        self.train_seconds.append(self.seconds())
        self.waited_seconds.append(waited)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave a block, such as the writing of a checkpoint, out of the training time."""
        since = self._now()
        yield
        self._started += time.perf_counter() - since

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
