"""BYOL (Grill et al. 2020, "Bootstrap your own latent")."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.models.momentum import cosine_to_one
from rscl_bench.objectives.base import StepInfo
from rscl_bench.objectives.embedding import (
    BYOL_VIEWS,
    TeacherEmbedding,
    TeacherEmbeddingParams,
    in_fp32,
    mlp,
    over_views,
)
from rscl_bench.spec import Fraction, Positive, Several
from rscl_bench.views.view import View


class BYOLParams(TeacherEmbeddingParams):
    """Views, heads and teacher.

    Attributes:
        first_view: How the first view is made.
        second_view: How the second view is made.
        hidden_dim: Hidden width of the projector and of the predictor.
        output_dim: Width of the projections.
        momentum: Momentum of the teacher at the start of a task. It rises to 1 (`cosine_to_one`).
    """

    first_view: View = BYOL_VIEWS[0]
    second_view: View = BYOL_VIEWS[1]
    hidden_dim: Positive = 4096
    output_dim: Several = 256
    momentum: Fraction = 0.99


class BYOL(TeacherEmbedding):
    """Predicts the momentum teacher's projection of one view from the other view (Eq. 2)."""

    Params = BYOLParams
    least_batch = 2
    stateless_loss = True
    momentum = True

    def __init__(self, params: BYOLParams, encoder: Encoder):
        widths = (params.hidden_dim, params.output_dim)
        # The output layers have no bias, as in the authors' code (``with_bias=False``).
        projector = mlp(encoder.feature_dim, *widths, last_bias=False)
        views = (params.first_view, params.second_view)
        super().__init__(params, encoder, views, projector)
        self.params = params
        self.predictor = mlp(params.output_dim, *widths, last_bias=False)

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return 2 − 2 cos(prediction, teacher), averaged over images and summed over directions.

        A direction predicts the teacher's projection of one view from the other view.
        """
        targets = [self.teacher_projection(view) for view in views]
        predicted = [self.predictor(projection) for projection in projected]
        pairs = zip(predicted, reversed(targets), strict=True)
        return torch.stack([in_fp32(byol_loss, *pair) for pair in pairs]).sum()

    def after_update(self, info: StepInfo) -> None:
        """Update the teacher."""
        self.update_teacher(cosine_to_one(self.params.momentum, info.progress))

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return 2 − 2 cos(predicted, past), averaged over images and views."""
        return over_views(byol_loss, predicted, past)


def byol_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Return 2 − 2 cos(predicted, target), averaged over the images of ``[B, P]`` (Eq. 2)."""
    return (2 - 2 * F.cosine_similarity(predicted, target)).mean()
