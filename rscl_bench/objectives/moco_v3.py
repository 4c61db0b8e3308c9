"""MoCo v3 (Chen et al. 2021, "An Empirical Study of Training Self-Supervised ViTs")."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.models.momentum import cosine_to_one
from rscl_bench.models.vit import ViT
from rscl_bench.objectives.base import StepInfo
from rscl_bench.objectives.embedding import (
    BYOL_VIEWS,
    TeacherEmbedding,
    TeacherEmbeddingParams,
    Temperature,
    contrast,
    distil_by_contrast,
    in_fp32,
    mlp,
)
from rscl_bench.spec import Fraction, Positive, Several
from rscl_bench.views.view import View


class MoCoV3Params(TeacherEmbeddingParams):
    """Views, heads, teacher and loss.

    Attributes:
        first_view: How the first view is made.
        second_view: How the second view is made.
        temperature: Temperature τ of the loss.
        momentum: Momentum of the teacher at the start of a task. It rises to 1 (`cosine_to_one`).
        freeze_patches: Whether a ViT's patch embedding keeps its initial weights (Section 4).
        hidden_dim: Hidden width of the projector and of the predictor.
        output_dim: Width of the projections.
    """

    first_view: View = BYOL_VIEWS[0]
    second_view: View = BYOL_VIEWS[1]
    temperature: Temperature = 0.2
    momentum: Fraction = 0.99
    freeze_patches: bool = True
    hidden_dim: Positive = 4096
    output_dim: Several = 256


class MoCoV3(TeacherEmbedding):
    """Contrasts the momentum teacher's key of the other view with the batch's keys (Algorithm 1).

    Projector and predictor are those of the authors' ViT: three and two layers, every layer with
    batch normalisation.
    """

    Params = MoCoV3Params
    least_batch = 2
    stateless_loss = True
    momentum = True
    negatives = True

    def __init__(self, params: MoCoV3Params, encoder: Encoder):
        hidden, width = params.hidden_dim, params.output_dim
        projector = mlp(encoder.feature_dim, hidden, hidden, width, last_norm=True)
        views = (params.first_view, params.second_view)
        super().__init__(params, encoder, views, projector)
        self.params = params
        self.predictor = mlp(width, hidden, width, last_norm=True)
        if params.freeze_patches and isinstance(encoder, ViT):
            encoder.patch_embed.requires_grad_(False)

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return 2 τ times the contrast of predictions with keys, summed over both directions."""
        keys = [self.teacher_projection(view) for view in views]
        queries = [self.predictor(projection) for projection in projected]
        loss = partial(contrast, temperature=self.params.temperature)
        pairs = zip(queries, reversed(keys), strict=True)
        both = torch.stack([in_fp32(loss, *pair) for pair in pairs]).sum()
        return 2 * self.params.temperature * both

    def after_update(self, info: StepInfo) -> None:
        """Update the teacher."""
        self.update_teacher(cosine_to_one(self.params.momentum, info.progress))

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the contrast between predicted and past projections; see `distil_by_contrast`."""
        return distil_by_contrast(predicted, past)
