"""Dark experience replay (DER) on features: replayed images regress their stored features."""

from typing import Annotated, Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rscl_bench.models.encoder import evaluating
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Trainer
from rscl_bench.strategies.buffer import BufferedStrategy
from rscl_bench.tiles.loader import TaskTiles


class DERParams(Spec):
    """The distillation on replayed images.

    Attributes:
        alpha: Weight α of the distillation.
        share: Number of replayed images per step, as a share of the batch.
    """

    alpha: Annotated[float, Field(gt=0)] = 0.4
    share: Annotated[float, Field(gt=0, le=1)] = 0.25


class DER(BufferedStrategy):
    """From the second task on, adds α · MSE(pool(e_t(aug(x_b))), f_b).

    Buzzega et al. (2020), "Dark Experience for General Continual Learning: a Strong, Simple
    Baseline", with features in place of logits, as in Madaan et al. (2022), who have no labels.
    Here f_b is the pooled feature of the image x_b, whole and not augmented, by the encoder at the
    end of the image's task. The student sees all patches, too.
    """

    Params = DERParams

    def __init__(self, params: DERParams, context: Context):
        super().__init__(params, context)
        self.params = params
        self.encoder = context.objective.encoder
        self.features: list[Tensor] = []

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        """Add the distillation, averaged over the views."""
        if not len(self.buffer):
            return
        count = max(1, round(self.params.share * len(trainer.views[0])))
        drawn = self.buffer.draw(count, "der", trainer.task, trainer.step)
        stored = self.stored_features(drawn)
        losses = [
            F.mse_loss(self.encoder.pool(self.encoder(view)).float(), stored)
            for view in trainer.views_of(drawn, "der")
        ]
        trainer.loss = trainer.loss + self.params.alpha * torch.stack(losses).mean()

    def stored_features(self, tiles: list[TaskTiles]) -> Tensor:
        """Return the stored features of tiles in the memory, ``[n, D]`` float32."""
        rows = []
        for task, indices in tiles:
            stored_indices = self.buffer.tiles[task][1]
            matches = indices[:, None] == stored_indices
            rows.append(self.features[task][matches.int().argmax(dim=1)])
        return torch.cat(rows)

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Add the ended task to the memory, with features."""
        super().after_training_exp(trainer)
        # The buffer drops the last tiles of a task when the task shrinks.
        self.features = [f[:n] for f, n in zip(self.features, self.buffer.counts, strict=False)]
        self.features.append(self._encode(trainer, self.buffer.tiles[-1]))

    @torch.no_grad()
    def _encode(self, trainer: Trainer, tiles: TaskTiles) -> Tensor:
        batch = self.context.protocol.training.batch_size
        task, indices = tiles
        with evaluating(self.encoder):
            features = [
                self.encoder.pool(self.encoder(trainer.whole_views_of([(task, part)])))
                for part in torch.split(indices, batch)
            ]
        return torch.cat(features).float()

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the buffer, and the features."""
        features = {f"features{task}": values for task, values in enumerate(self.features)}
        return {**super().state_dict(), **features}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state of the buffer, and the features."""
        tasks = range(len(state) // 2)
        self.features = [state[f"features{task}"].to(self.context.device) for task in tasks]
        super().load_state_dict({f"task{task}": state[f"task{task}"] for task in tasks})
