"""Projected functional regularisation (PFR): the old feature is predicted from the new one."""

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
        weight: λ.
    """

    weight: Annotated[float, Field(gt=0)] = 1.0


class PFR(Distillation):
    """From the second task on, adds −λ cos(g(pool e_t(x)), pool e_{t−1}(x)).

    Gomez-Villa et al. (2022), "Continually Learning Self-Supervised Representations With Projected
    Functional Regularization", and its authors' code. g: D → D/2, BN, ReLU, → D; it persists across
    tasks. Where the objective masks, the student's view is masked and the teacher's is not.
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
        """Return the negative cosine, averaged over the batch."""
        return -F.cosine_similarity(student, teacher).mean()
