"""CaSSLe: the state of the last task is predicted with the objective's own kind of loss."""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.randomness import seeded
from rscl_bench.spec import Positive, Spec
from rscl_bench.strategies.base import Context
from rscl_bench.strategies.distillation import Distillation


class CaSSLeParams(Spec):
    """The predictor and the distillation.

    Attributes:
        weight: λ.
        hidden_dim: Hidden width of the predictor.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0
    hidden_dim: Positive = 2048


class CaSSLe(Distillation):
    """From the second task on, adds λ · MSE(g(pool e_t(x)), pool e_{t−1}(x)).

    Fini et al. (2022), "Self-Supervised Models are Continual Learners", Section 5: the distillation
    is the objective's own loss between predicted and old state. For a masked autoencoder, whose
    loss is a squared error and which has no projector, that is the squared error of pooled
    features. g: D → hidden, BN, ReLU, → D; it persists across tasks.
    """

    Params = CaSSLeParams

    def __init__(self, params: CaSSLeParams, context: Context):
        super().__init__(params, context)
        self.weight = params.weight
        width, hidden = self.student.feature_dim, params.hidden_dim
        with seeded(context.seed, "cassle predictor"):
            head = nn.Sequential(
                nn.Linear(width, hidden),
                nn.BatchNorm1d(hidden),
                nn.ReLU(),
                nn.Linear(hidden, width),
            )
        self.head = head.to(context.device)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the mean squared error."""
        return F.mse_loss(student, teacher)
