"""MoCo v2 (Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning")."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rscl_bench.models.encoder import Encoder, Pool
from rscl_bench.objectives.base import StepInfo
from rscl_bench.objectives.embedding import (
    MOCO_V2_VIEW,
    TeacherEmbedding,
    Temperature,
    distil_by_contrast,
    in_fp32,
    mlp,
)
from rscl_bench.objectives.queue import Queue
from rscl_bench.spec import Fraction, Positive, Spec
from rscl_bench.views.view import View


class MoCoV2Params(Spec):
    """Views, projector, teacher, queue and loss.

    Attributes:
        view: How both views are made.
        temperature: τ.
        queue: Keys of past batches that are negatives.
        momentum: Of the teacher.
        symmetric: Whether the second view is contrasted with the first one's keys too, and the loss
            is the mean of both.
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the projections.
        feature: What is projected: mean patch token, or class token.
    """

    view: View = MOCO_V2_VIEW
    temperature: Temperature = 0.2
    queue: Positive = 65536
    momentum: Fraction = 0.999
    symmetric: bool = False
    hidden_dim: Positive = 2048
    output_dim: Positive = 128
    feature: Pool = "patches"


class MoCoV2(TeacherEmbedding):
    """Tells a momentum teacher's key of the other view from the keys of past batches.

    He et al. (2020), "Momentum Contrast for Unsupervised Visual Representation Learning", Eq. 1 and
    2, with the projector and the views of version 2.
    """

    Params = MoCoV2Params
    momentum = True
    negatives = True

    def __init__(self, params: MoCoV2Params, encoder: Encoder):
        projector = mlp(encoder.feature_dim, params.hidden_dim, params.output_dim, norm=False)
        views = (params.view, params.view)
        super().__init__(params, encoder, views, projector, params.output_dim, params.feature)
        self.params = params
        self.queue = Queue(params.queue, params.output_dim)
        self.keys: Tensor | None = None

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return the contrast of the first view's queries with the second one's keys (Eq. 1)."""
        queries, keyed = list(projected[:1]), list(views[1:])
        if self.params.symmetric:
            queries, keyed = list(projected), [views[1], views[0]]
        keys = [F.normalize(self.teacher_projection(view).float(), dim=1) for view in keyed]
        self.keys = torch.cat(keys)
        loss = partial(moco_loss, negatives=self.queue.rows, temperature=self.params.temperature)
        pairs = zip(queries, keys, strict=True)
        return torch.stack([in_fp32(loss, *pair) for pair in pairs]).mean()

    def after_update(self, info: StepInfo) -> None:
        """Let the teacher follow, and the keys of the batch replace the oldest."""
        self.update_teacher(self.params.momentum)
        assert self.keys is not None
        self.queue.push(self.keys)

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the contrast of predicted and past projections; see `distil_by_contrast`."""
        return distil_by_contrast(predicted, past)


def moco_loss(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of telling each query's key from negatives (He et al., Eq. 1).

    Args:
        queries: ``[B, P]``.
        keys: ``[B, P]``, each of length 1.
        negatives: ``[K, P]``, each of length 1.
        temperature: τ.
    """
    queries = F.normalize(queries, dim=1)
    own = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([own, queries @ negatives.T], dim=1) / temperature
    first = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, first)
