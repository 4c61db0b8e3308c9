"""VICReg (Bardes et al. 2022, "Variance-Invariance-Covariance Regularization ...")."""

from collections.abc import Sequence
from typing import Annotated, Self

from lightly.loss import VICRegLoss
from pydantic import Field, model_validator
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.embedding import (
    BYOL_VIEWS,
    EmbeddingParams,
    JointEmbedding,
    in_fp32,
    mlp,
)
from rscl_bench.spec import Positive, Several
from rscl_bench.views.view import View

Weight = Annotated[float, Field(ge=0)]


class VICRegParams(EmbeddingParams):
    """Views, projector and loss.

    Attributes:
        first_view: How the first view is made.
        second_view: How the second view is made.
        invariance: λ, the weight of the distance between views.
        variance: μ, the weight of the variance term.
        covariance: ν, the weight of the covariance term.
        hidden_dim: Width of both hidden layers of the projector.
        output_dim: Width of the projections.
    """

    first_view: View = BYOL_VIEWS[0]
    second_view: View = BYOL_VIEWS[1]
    invariance: Weight = 25.0
    variance: Weight = 25.0
    covariance: Weight = 1.0
    hidden_dim: Positive = 8192
    output_dim: Several = 8192

    @model_validator(mode="after")
    def _loss_is_not_constant(self) -> Self:
        if not self.invariance + self.variance + self.covariance:
            raise ValueError("invariance, variance and covariance are all 0; set one above 0")
        return self


class VICReg(JointEmbedding):
    """Brings two views together and keeps the dimensions varied and uncorrelated (Eq. 6)."""

    Params = VICRegParams
    least_batch = 2
    stateless_loss = True

    def __init__(self, params: VICRegParams, encoder: Encoder):
        hidden, width = params.hidden_dim, params.output_dim
        # No term of the loss depends on the bias of the output layer.
        projector = mlp(encoder.feature_dim, hidden, hidden, width, last_bias=False)
        views = (params.first_view, params.second_view)
        super().__init__(params, encoder, views, projector)
        self.params = params
        self.loss = VICRegLoss(params.invariance, params.variance, params.covariance)

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return the weighted sum of the invariance, variance and covariance terms."""
        return in_fp32(self.loss, *projected)

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the weighted invariance term between predicted and past projections."""
        return self.params.invariance * super().distil(predicted, past)
