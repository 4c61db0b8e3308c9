"""Experience replay (ER): trains on images of past tasks along with the current images."""

from typing import Any, Literal

import torch

from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Trainer
from rscl_bench.strategies.buffer import BufferedStrategy


class ReplayParams(Spec):
    """How the memory enters training.

    Attributes:
        mode: ``concat`` trains on the union of the task's tiles and the memory, so that an epoch
            has more steps. ``batch`` adds an equal number of images from the memory to every batch.
    """

    mode: Literal["concat", "batch"] = "concat"


class Replay(BufferedStrategy):
    """From the second task on, trains on the memory too, with the objective's mean loss.

    Chaudhry et al. (2019), "On Tiny Episodic Memories in Continual Learning", without labels. The
    memory holds equal numbers of tiles of every past task.
    """

    Params = ReplayParams

    def __init__(self, params: ReplayParams, context: Context):
        super().__init__(params, context)
        self.params = params

    def before_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Add the memory to the task's tiles."""
        if self.params.mode == "concat" and len(self.buffer):
            task = trainer.task
            current = (task, torch.arange(trainer.tile_counts[task]))
            trainer.train_on([current, *self.buffer.tiles])

    def before_forward(self, trainer: Trainer, **_: Any) -> None:
        """Double the batch with images from the memory."""
        if self.params.mode == "batch" and len(self.buffer):
            count = len(trainer.views[0])
            drawn = self.buffer.draw(count, "replay", trainer.task, trainer.step)
            past = trainer.views_of(drawn, "replay")
            trainer.views = [
                torch.cat([new, old]) for new, old in zip(trainer.views, past, strict=True)
            ]
