"""Data mixup of CoSMAE (Eq. 2), which is LUMP: each batch is mixed with images of past tasks."""

from typing import Any

import torch
from torch import Tensor

from rscl_bench.strategies.base import Context, Strategy, Trainer
from rscl_bench.strategies.buffer import TileBuffer
from rscl_bench.strategies.mixing import MixingParams


class DataMixupParams(MixingParams):
    """λ1 and whether it is drawn for every image.

    Attributes:
        per_image: One λ1 per image, as Eq. 2 indexes it, instead of one per batch.
    """

    per_image: bool = False


class DataMixup(Strategy):
    """From the second task on, X̃ = λ1 X + (1 − λ1) X^M with λ1 ~ Beta(α1, α1).

    X are the views of the current batch and X^M those of as many tiles of the buffer, augmented
    independently of each other. The buffer holds equal counts of every past task. The same mixing
    is LUMP (Madaan et al. 2022, "Representational Continuity for Unsupervised Continual Learning"),
    by which name it is registered too.
    """

    Params = DataMixupParams

    def __init__(self, params: DataMixupParams, context: Context):
        super().__init__(params, context)
        self.params = params
        self.buffer = TileBuffer(context.protocol.buffer_size, context.seed)

    def before_forward(self, trainer: Trainer, **_: Any) -> None:
        """Mix the current views with views of the buffer."""
        if len(self.buffer) == 0:
            return
        batch = len(trainer.views[0])
        drawn = self.buffer.draw(batch, "data-mixup", trainer.task, trainer.step)
        past = trainer.views_of(drawn, "data-mixup")
        weight = self._weights(batch, trainer)
        trainer.views = [
            torch.lerp(old, new, weight) for old, new in zip(past, trainer.views, strict=True)
        ]

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Take the task that ended into the buffer."""
        self.buffer.add(trainer.experience)

    def _weights(self, batch: int, trainer: Trainer) -> Tensor:
        count = batch if self.params.per_image else 1
        values = self.params.draw(
            count, self.context.seed, "data-mixup", trainer.task, trainer.step
        )
        device = trainer.views[0].device
        return torch.tensor(values, device=device).view(count, 1, 1, 1)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the buffer's indices."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back the buffer's indices."""
        self.buffer.load_state_dict(state)

    def describe(self) -> dict[str, Any]:
        """Return how many tiles of each past task the buffer holds."""
        return {"buffer": self.buffer.counts}
