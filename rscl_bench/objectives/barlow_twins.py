"""Barlow Twins (Zbontar et al. 2021, "Self-Supervised Learning via Redundancy Reduction")."""

from collections.abc import Sequence
from typing import Annotated

from lightly.loss import BarlowTwinsLoss
from pydantic import Field
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.embedding import (
    BYOL_VIEWS,
    EmbeddingParams,
    JointEmbedding,
    in_fp32,
    mlp,
    over_views,
)
from rscl_bench.spec import Positive, Several
from rscl_bench.views.view import View


class BarlowTwinsParams(EmbeddingParams):
    """Views, projector and loss.

    Attributes:
        first_view: How the first view is made.
        second_view: How the second view is made.
        redundancy: λ, the weight of the off-diagonal correlations.
        hidden_dim: Width of both hidden layers of the projector.
        output_dim: Width of the projections.
    """

    first_view: View = BYOL_VIEWS[0]
    second_view: View = BYOL_VIEWS[1]
    redundancy: Annotated[float, Field(ge=0)] = 0.005
    hidden_dim: Positive = 8192
    output_dim: Several = 8192


class BarlowTwins(JointEmbedding):
    """Brings the correlation matrix of two views' projections close to the identity (Eq. 1)."""

    Params = BarlowTwinsParams
    least_batch = 2
    stateless_loss = True

    def __init__(self, params: BarlowTwinsParams, encoder: Encoder):
        hidden, width = params.hidden_dim, params.output_dim
        # The loss standardises the projections, which cancels a bias of the output.
        projector = mlp(encoder.feature_dim, hidden, hidden, width, last_bias=False)
        views = (params.first_view, params.second_view)
        super().__init__(params, encoder, views, projector)
        self.loss = BarlowTwinsLoss(params.redundancy)

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return Σ (1 − c_ii)² + λ Σ c_ij² for the correlations c between both views."""
        return in_fp32(self.loss, *projected)

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the loss (Eq. 1) between predicted and past projections, averaged over views."""
        return over_views(self.loss, predicted, past)
