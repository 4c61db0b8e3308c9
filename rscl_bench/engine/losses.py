"""Keeps the loss of every step, averaged over windows of steps, for curves.

The sums are kept on the device of training, so that no step waits for them. They are part of a
checkpoint: an interrupted run ends with the losses of an uninterrupted one, to the bit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from rscl_bench.engine.checkpointing.state import Snapshot, strip_prefix, with_prefix
from rscl_bench.results.losses import COLUMNS

#: Largest number of windows of a task.
WINDOWS = 1000


@dataclass
class TaskLosses:
    """The losses of one task.

    Attributes:
        sums: Sums over the steps of each window, ``[W, 2]`` float64: the whole loss, and the
            objective's part.
        rates: Learning rate of the last step of each window.
        stride: Number of steps of a window; the last window may have fewer.
        steps: Number of steps so far.
    """

    sums: Tensor
    rates: list[float]
    stride: int
    steps: int = 0

    @classmethod
    def of(cls, steps: int, device: torch.device) -> "TaskLosses":
        """Return empty windows for a task of so many steps."""
        stride = max(1, math.ceil(steps / WINDOWS))
        windows = max(1, math.ceil(steps / stride))
        return cls(torch.zeros(windows, 2, dtype=torch.float64, device=device), [], stride)

    def add(self, loss: Tensor, objective: Tensor, rate: float) -> bool:
        """Add the losses of one step; return whether the step ends a window."""
        window = self.steps // self.stride
        self.sums[window, 0] += loss.detach().squeeze()
        self.sums[window, 1] += objective.detach().squeeze()
        self.rates[window:] = [rate]
        self.steps += 1
        return self.steps % self.stride == 0

    def windows(self, first: int = 0) -> list[tuple[int, int, float, float, float, float]]:
        """Return the windows that have a step, from the window number ``first`` on.

        Returns:
            First step, last step (both from 1), rate, and the means of the whole loss, of the
            objective's part and of the terms of strategies.
        """
        lines = []
        sums = self.sums[first : len(self.rates)].cpu().tolist()
        for number, (whole, objective) in enumerate(sums, first):
            start = number * self.stride
            count = min(self.stride, self.steps - start)
            means = whole / count, objective / count, (whole - objective) / count
            lines.append((start + 1, start + count, self.rates[number], *means))
        return lines


class Losses:
    """The losses of a run, task by task.

    Attributes:
        tasks: The losses of each task that has a step, by index of the task.
    """

    def __init__(self, names: Sequence[str], device: torch.device):
        """Prepare empty losses.

        Args:
            names: Names of the tasks.
            device: Device of training.
        """
        self._names, self._device = list(names), device
        self.tasks: dict[int, TaskLosses] = {}

    def add(
        self, task: int, step: int, steps: int, loss: Tensor, objective: Tensor, rate: float
    ) -> bool:
        """Add the losses of one step.

        Args:
            task: Index of the task, from 0.
            step: Number of steps of the task so far, this one included.
            steps: Number of steps of the task.
            loss: The whole loss, a scalar on the device.
            objective: The objective's part of the loss.
            rate: Learning rate of the step.

        Returns:
            Whether the step ends a window.
        """
        if step == 1:
            self.tasks[task] = TaskLosses.of(steps, self._device)
        # A checkpoint of a version that kept no losses: the losses of this task stay unknown.
        own = self.tasks.get(task)
        return own is not None and own.add(loss, objective, rate)

    def frame(self) -> pd.DataFrame:
        """Return all windows, in the columns of `rscl_bench.results.losses.COLUMNS`."""
        lines = [
            (task + 1, self._names[task], *window)
            for task, own in sorted(self.tasks.items())
            for window in own.windows()
        ]
        return pd.DataFrame(lines, columns=list(COLUMNS))

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums, for a checkpoint."""
        return with_prefix("losses", {str(task): own.sums for task, own in self.tasks.items()})

    def metadata(self) -> dict[str, Any]:
        """Return the JSON-able rest, for a checkpoint."""
        return {
            "losses": {
                str(task): {"rates": own.rates, "stride": own.stride, "steps": own.steps}
                for task, own in self.tasks.items()
            }
        }

    def restore(self, snapshot: Snapshot) -> None:
        """Restore the losses of a checkpoint; one without losses leaves them empty."""
        sums = strip_prefix(snapshot.tensors, "losses")
        self.tasks = {
            int(task): TaskLosses(sums[task].to(self._device).clone(), **values)
            for task, values in snapshot.metadata.get("losses", {}).items()
        }
