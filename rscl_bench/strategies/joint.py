"""Joint training on all tasks at once: the upper reference, not a continual strategy."""

from typing import Any

import torch

from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Strategy, Trainer


class JointParams(Spec):
    """There is nothing to set."""


class Joint(Strategy):
    """Trains on the union of all tasks' tiles in place of the first task, and then no more.

    One optimiser and one schedule, and the protocol's epochs over the union, so that as many images
    are seen as in the stream. The encoder, and so its scores, are the same after every task.
    """

    Params = JointParams
    needs = ("same_parameters",)
    plain_first_task = False

    def before_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Take the tiles of all tasks, or none."""
        counts = trainer.tile_counts if trainer.task == 0 else []
        trainer.train_on([(task, torch.arange(count)) for task, count in enumerate(counts)])
