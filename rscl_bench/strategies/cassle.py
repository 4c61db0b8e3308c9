"""CaSSLe: predicts the last task's projections, with the objective's own kind of loss."""

import copy
from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder, keep_in_autocast_dtype
from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.randomness import seeded
from rscl_bench.spec import Pool, Positive, Spec
from rscl_bench.strategies.base import Context, Strategy, Trainer


class CaSSLeParams(Spec):
    """The predictor and the distillation.

    Attributes:
        weight: Weight λ of the distillation.
        hidden_dim: Hidden width of the predictor.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0
    hidden_dim: Positive = 2048


class Past(nn.Module):
    """Encoder and projector at the end of the last task, frozen."""

    def __init__(self, encoder: Encoder, projector: nn.Module):
        super().__init__()
        self.encoder, self.projector = copy.deepcopy((encoder, projector))
        self.requires_grad_(False).eval()

    def projected(self, view: Tensor, feature: Pool) -> Tensor:
        """Return the projections ``[B, P]`` of a view ``[B, C, H, W]``."""
        projected: Tensor = self.projector(self.encoder.pool(self.encoder(view), feature))
        return projected


def current_projections(objective: Objective, output: ObjectiveOutput) -> Sequence[Tensor]:
    """Return the current projections of all views that the encoder sees, one ``[B, P]`` each."""
    if output.projected:
        return output.projected
    pooled = (objective.encoder.pool(view, objective.feature) for view in output.encoded)
    return [objective.projector(features) for features in pooled]


class CaSSLe(Strategy):
    """From the second task on, adds λ · L(g(z), z̄) between current and past projections.

    Fini et al. (2022), "Self-Supervised Models are Continual Learners", Section 5: z is the
    current projection of each view, and z̄ is the projection by the frozen encoder and projector of
    the end of the last task. L is the objective's ``distil``. The predictor g: P → hidden, BN,
    ReLU, → P persists across tasks, and so does the objective's ``distil_head``, if it has one,
    which follows g. Small crops take no part.
    """

    Params = CaSSLeParams

    def __init__(self, params: CaSSLeParams, context: Context):
        super().__init__(params, context)
        self.params = params
        self.objective = context.objective
        self.past: Past | None = None
        width, hidden = self.objective.projected_dim, params.hidden_dim
        with seeded(context.seed, "cassle predictor"):
            head = nn.Sequential(
                nn.Linear(width, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
                nn.Linear(hidden, width),
            )
        with seeded(context.seed, "cassle head of the objective"):
            last = self.objective.distil_head()
        if last is not None:
            head.append(last)
        self.head = head.to(context.device)

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        """Add the distillation."""
        if self.past is None:
            return
        assert self.head is not None
        current = current_projections(self.objective, trainer.mb_output)
        views = self.objective.views[: len(current)]  # those that the encoder sees
        whole = [index for index, view in enumerate(views) if view.size == 1]
        predicted = [self.head(current[index]).float() for index in whole]
        feature = self.objective.feature
        keep_in_autocast_dtype(self.past, self.context.device.type)
        with torch.no_grad():
            past = [self.past.projected(trainer.views[i], feature).float() for i in whole]
        with torch.autocast(past[0].device.type, enabled=False):  # losses are fp32
            loss = self.objective.distil(predicted, past)
        trainer.loss = trainer.loss + self.params.weight * loss

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Keep encoder and projector for the next task."""
        self.past = Past(self.objective.encoder, self.objective.projector)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the past encoder and projector."""
        return {} if self.past is None else dict(self.past.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the past encoder and projector."""
        self.past = None
        if state:
            self.past = Past(self.objective.encoder, self.objective.projector)
            self.past.load_state_dict(state)
