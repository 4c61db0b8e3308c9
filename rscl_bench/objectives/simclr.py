"""SimCLR (Chen et al. 2020, "A Simple Framework for Contrastive Learning ...")."""

from collections.abc import Sequence

from lightly.loss import NTXentLoss
from lightly.models.modules.heads import SimCLRProjectionHead
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.embedding import (
    SIMCLR_VIEW,
    EmbeddingParams,
    JointEmbedding,
    Temperature,
    distil_by_contrast,
    in_fp32,
)
from rscl_bench.spec import Positive, Several
from rscl_bench.views.view import View


class SimCLRParams(EmbeddingParams):
    """Views, projector and loss.

    Attributes:
        view: How both views are made.
        temperature: Temperature τ of the loss.
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the projections.
    """

    view: View = SIMCLR_VIEW
    temperature: Temperature = 0.1
    hidden_dim: Positive = 2048
    output_dim: Several = 128


class SimCLR(JointEmbedding):
    """Contrasts the two views of an image with all other views of the batch (NT-Xent, Eq. 1).

    As in the authors' code, the projector has two layers with batch normalisation, and both views
    form one batch.
    """

    Params = SimCLRParams
    least_batch = 2
    negatives = True
    stateless_loss = True
    joint_batch = True

    def __init__(self, params: SimCLRParams, encoder: Encoder):
        projector = SimCLRProjectionHead(encoder.feature_dim, params.hidden_dim, params.output_dim)
        views = (params.view, params.view)
        super().__init__(params, encoder, views, projector)
        self.loss = NTXentLoss(params.temperature)

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return NT-Xent over the 2 B projections."""
        return in_fp32(self.loss, *projected)

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the contrast between predicted and past projections; see `distil_by_contrast`."""
        return distil_by_contrast(predicted, past)
