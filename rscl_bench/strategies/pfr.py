"""Projected functional regularisation (PFR): predicts the old feature from the new feature."""

from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.randomness import seeded
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context
from rscl_bench.strategies.distillation import Distillation


class PFRParams(Spec):
    """The regularisation.

    Attributes:
        weight: Weight λ of the regularisation.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0


class PFR(Distillation):
    """From the second task on, adds −λ cos(g(pool e_t(x)), pool e_{t−1}(x)).

    Gomez-Villa et al. (2022), "Continually Learning Self-Supervised Representations With Projected
    Functional Regularization", and the authors' code. The projector g: D → D/2, BN, ReLU, → D
    persists across tasks. If the objective masks views, only the student's view is masked.
    """

    Params = PFRParams

    def __init__(self, params: PFRParams, context: Context):
        super().__init__(params, context)
        self.weight = params.weight
        width = self.student.feature_dim
        with seeded(context.seed, "pfr projector"):
            head = nn.Sequential(
                nn.Linear(width, width // 2),
                nn.BatchNorm1d(width // 2),
                nn.ReLU(),
                nn.Linear(width // 2, width),
            )
        self.head = head.to(context.device)

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the negative cosine similarity, averaged over the batch, a scalar."""
        return -F.cosine_similarity(student, teacher).mean()
