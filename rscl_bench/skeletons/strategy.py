"""The strategy skeleton."""

from typing import Annotated, Any

import torch
from pydantic import Field
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Strategy, Trainer
from torch import Tensor


class Parameters(Spec):
    """What a recipe and --set may change.

    Attributes:
        weight: Weight of the penalty on the distance from the weights of the last task.
    """

    weight: Annotated[float, Field(ge=0)] = 1.0


class Skeleton(Strategy):
    """Adds weight / 2 times the squared distance from the last task's weights."""

    Params = Parameters

    def __init__(self, params: Parameters, context: Context):
        super().__init__(params, context)
        self.weight = params.weight
        self.anchor: dict[str, Tensor] = {}  # empty in the first task

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        """Add the penalty to the loss."""
        if self.anchor:
            pairs = [(now, self.anchor[key]) for key, now in self._weights()]
            squares = [(now - old).square().sum() for now, old in pairs]
            trainer.loss = trainer.loss + self.weight / 2 * torch.stack(squares).sum()

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Keep the weights at the end of a task."""
        self.anchor = {key: now.detach().clone() for key, now in self._weights()}

    def _weights(self) -> list[tuple[str, Tensor]]:
        named = self.context.objective.encoder.named_parameters()
        return [(key, weight) for key, weight in named if weight.requires_grad]

    def state_dict(self) -> dict[str, Tensor]:
        """Return all state on which the rest of the stream depends."""
        return dict(self.anchor)

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state, so that an interrupted run resumes to the same bits."""
        self.anchor = dict(state)
