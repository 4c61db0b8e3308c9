"""MoCo v2 (Chen et al. 2020, "Improved Baselines with Momentum Contrastive Learning")."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import StepInfo
from rscl_bench.objectives.embedding import (
    MOCO_V2_VIEW,
    TeacherEmbedding,
    TeacherEmbeddingParams,
    Temperature,
    distil_by_contrast,
    in_fp32,
    mlp,
)
from rscl_bench.objectives.queue import Queue
from rscl_bench.spec import Fraction, Positive, Several
from rscl_bench.views.view import View


class MoCoV2Params(TeacherEmbeddingParams):
    """Views, projector, teacher, queue and loss.

    Attributes:
        view: How both views are made.
        temperature: Temperature τ of the loss.
        queue: Number of keys of past batches that serve as negatives.
        momentum: Momentum of the teacher.
        symmetric: Whether the second view is also contrasted with the keys of the first view. The
            loss is then the mean over both directions.
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the projections.
    """

    view: View = MOCO_V2_VIEW
    temperature: Temperature = 0.2
    queue: Positive = 65536
    momentum: Fraction = 0.999
    symmetric: bool = False
    hidden_dim: Positive = 2048
    output_dim: Several = 128


class MoCoV2(TeacherEmbedding):
    """Contrasts the momentum teacher's key of the other view with keys of past batches.

    He et al. (2020), "Momentum Contrast for Unsupervised Visual Representation Learning", Eq. 1 and
    2. Projector and views are those of version 2.
    """

    Params = MoCoV2Params
    momentum = True
    negatives = True

    def __init__(self, params: MoCoV2Params, encoder: Encoder):
        projector = mlp(encoder.feature_dim, params.hidden_dim, params.output_dim, norm=False)
        views = (params.view, params.view)
        super().__init__(params, encoder, views, projector)
        self.params = params
        self.queue = Queue(params.queue, params.output_dim)
        self.keys: Tensor | None = None

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return the contrast of the first view's queries with the second view's keys (Eq. 1)."""
        queries, key_views = list(projected[:1]), list(views[1:])
        if self.params.symmetric:
            queries, key_views = list(projected), [views[1], views[0]]
        keys = [F.normalize(self.teacher_projection(view).float(), dim=1) for view in key_views]
        self.keys = torch.cat(keys)
        loss = partial(moco_loss, negatives=self.queue.rows, temperature=self.params.temperature)
        pairs = zip(queries, keys, strict=True)
        return torch.stack([in_fp32(loss, *pair) for pair in pairs]).mean()

    def after_update(self, info: StepInfo) -> None:
        """Update the teacher, and push the keys of the batch onto the queue."""
        self.update_teacher(self.params.momentum)
        assert self.keys is not None
        self.queue.push(self.keys)

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the contrast between predicted and past projections; see `distil_by_contrast`."""
        return distil_by_contrast(predicted, past)


def moco_loss(queries: Tensor, keys: Tensor, negatives: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of finding each query's key among negatives (He et al., Eq. 1).

    Args:
        queries: ``[B, P]``.
        keys: ``[B, P]``, each row of length 1. Row i is the key of query i.
        negatives: ``[K, P]``, each row of length 1.
        temperature: τ.
    """
    queries = F.normalize(queries, dim=1)
    positive = (queries * keys).sum(dim=1, keepdim=True)
    logits = torch.cat([positive, queries @ negatives.T], dim=1) / temperature
    targets = torch.zeros(len(logits), dtype=torch.long, device=logits.device)
    return F.cross_entropy(logits, targets)
