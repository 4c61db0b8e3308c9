"""Data mixup (CoSMAE, Eq. 2), also known as LUMP: mixes each batch with images of past tasks."""

from typing import Any

import torch
from torch import Tensor

from rscl_bench.strategies.base import Context, Trainer
from rscl_bench.strategies.buffer import BufferedStrategy
from rscl_bench.strategies.mixing import MixingParams, mixed


class DataMixupParams(MixingParams):
    """The distribution of λ1, and the number of draws.

    Attributes:
        per_image: Whether λ1 is drawn for each image, or once per batch; Eq. 2 gives λ1 no index.
    """

    per_image: bool = False


class DataMixup(BufferedStrategy):
    """From the second task on, X̃ = λ1 X + (1 − λ1) X^M with λ1 ~ Beta(α1, α1).

    X are the views of the current batch, and X^M are the views of an equal number of tiles from the
    buffer. Both are augmented independently. The buffer holds equal numbers of tiles of every past
    task. This mixing is also LUMP (Madaan et al. 2022, "Representational Continuity for
    Unsupervised Continual Learning"); so the class is also registered as ``lump``. Where images
    differ in bands, a mixture has the bands of both; see `rscl_bench.strategies.mixing.mixed`.
    """

    Params = DataMixupParams

    def __init__(self, params: DataMixupParams, context: Context):
        super().__init__(params, context)
        self.params = params

    def before_forward(self, trainer: Trainer, **_: Any) -> None:
        """Mix the current views with views of tiles from the buffer."""
        if len(self.buffer) == 0:
            return
        batch = len(trainer.views[0])
        drawn = self.buffer.draw(batch, "data-mixup", trainer.task, trainer.step)
        past = trainer.views_of(drawn, "data-mixup")
        weight = self._weights(batch, trainer)
        bands_differ = self.context.objective.encoder.bands is not None
        trainer.views = [
            mixed(old, new, weight, bands_differ)
            for old, new in zip(past, trainer.views, strict=True)
        ]

    def _weights(self, batch: int, trainer: Trainer) -> Tensor:
        count = batch if self.params.per_image else 1
        values = self.params.draw(
            count, self.context.seed, "data-mixup", trainer.task, trainer.step
        )
        device = trainer.views[0].device
        return torch.tensor(values, device=device).view(count, 1, 1, 1)
