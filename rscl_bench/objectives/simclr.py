"""SimCLR (Chen et al. 2020, "A Simple Framework for Contrastive Learning ...")."""

from collections.abc import Sequence

from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor

from rscl_bench.models.encoder import Encoder, Pool
from rscl_bench.objectives.embedding import (
    SIMCLR_VIEW,
    JointEmbedding,
    Temperature,
    distil_by_contrast,
    in_fp32,
)
from rscl_bench.spec import Positive, Spec
from rscl_bench.views.view import View


class SimCLRParams(Spec):
    """Views, projector and loss.

    Attributes:
        view: How both views are made.
        temperature: τ.
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the projections.
        feature: What is projected: mean patch token, or class token.
    """

    view: View = SIMCLR_VIEW
    temperature: Temperature = 0.1
    hidden_dim: Positive = 2048
    output_dim: Positive = 128
    feature: Pool = "patches"


class SimCLR(JointEmbedding):
    """Tells each image's other view from all other views of the batch (NT-Xent, Eq. 1).

    The projector has two layers with batch normalisation, and both views pass as one batch, as in
    the authors' code.
    """

    Params = SimCLRParams
    negatives = True
    stateless_loss = True
    joint_batch = True

    def __init__(self, params: SimCLRParams, encoder: Encoder):
        projector = SimCLRProjectionHead(encoder.feature_dim, params.hidden_dim, params.output_dim)
        views = (params.view, params.view)
        super().__init__(params, encoder, views, projector, params.output_dim, params.feature)
        self.loss = NTXentLoss(params.temperature)

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return NT-Xent over the 2B projections."""
        return in_fp32(self.loss, *projected)

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the contrast of predicted and past projections; see `distil_by_contrast`."""
        return distil_by_contrast(predicted, past)
