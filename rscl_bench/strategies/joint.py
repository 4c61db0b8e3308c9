"""Joint training on all tasks at once: an upper reference by custom, no continual strategy."""

from typing import Any

import torch

from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Strategy, Trainer


class JointParams(Spec):
    """No parameters."""


class Joint(Strategy):
    """Trains on the union of all tasks' tiles during the first task, and not at all afterwards.

    Training has one optimiser, one schedule and the protocol's epochs over the union, so the
    encoder sees as many images as in the stream. The encoder and its scores are equal after all
    tasks.
    """

    Params = JointParams
    needs = ("same_parameters",)
    plain_first_task = False
    whole_stream = True

    def before_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Select the tiles of all tasks in the first task, and no tiles in later tasks."""
        counts = trainer.tile_counts if trainer.task == 0 else []
        trainer.train_on([(task, torch.arange(count)) for task, count in enumerate(counts)])
