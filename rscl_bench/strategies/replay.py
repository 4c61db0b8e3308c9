"""Experience replay (ER): images of past tasks are trained along with the current ones."""

from typing import Any, Literal

import torch
from torch import Tensor

from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Strategy, Trainer
from rscl_bench.strategies.buffer import TileBuffer


class ReplayParams(Spec):
    """How the memory is trained along.

    Attributes:
        mode: ``concat`` trains on the union of the task's tiles and the memory, so that an epoch
            has a few steps more; ``batch`` adds as many images of the memory to every batch.
    """

    mode: Literal["concat", "batch"] = "concat"


class Replay(Strategy):
    """From the second task on, trains on the memory too, with the same mean loss.

    Chaudhry et al. (2019), "On Tiny Episodic Memories in Continual Learning", without labels. The
    memory holds equal counts of every past task.
    """

    Params = ReplayParams

    def __init__(self, params: ReplayParams, context: Context):
        super().__init__(params, context)
        self.params = params
        self.buffer = TileBuffer(context.protocol.buffer_size, context.seed)

    def before_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Add the memory to the task's tiles."""
        if self.params.mode == "concat" and len(self.buffer):
            task = trainer.task
            current = (task, torch.arange(trainer.tile_counts[task]))
            trainer.train_on([current, *self.buffer.tiles])

    def before_forward(self, trainer: Trainer, **_: Any) -> None:
        """Add as many images of the memory to the batch."""
        if self.params.mode == "batch" and len(self.buffer):
            count = len(trainer.views[0])
            drawn = self.buffer.draw(count, "replay", trainer.task, trainer.step)
            past = trainer.views_of(drawn, "replay")
            trainer.views = [
                torch.cat([new, old]) for new, old in zip(trainer.views, past, strict=True)
            ]

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Take the task that ended into the memory."""
        self.buffer.add(trainer.experience)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the buffer's indices."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back the buffer's indices."""
        self.buffer.load_state_dict(state)

    def describe(self) -> dict[str, Any]:
        """Return how many tiles of each past task the buffer holds."""
        return {"buffer": self.buffer.counts}
