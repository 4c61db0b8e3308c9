"""Parts shared by SwAV and DeepCluster v2: multi-crop views and assignments to prototypes."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from rscl_bench.objectives.embedding import SIMCLR_VIEW, EmbeddingParams, Temperature
from rscl_bench.spec import Positive, Several
from rscl_bench.views.view import View

#: Number of large views. They come first; targets are made from the large views alone, and all
#: views predict the targets.
LARGE_VIEWS = 2


class MultiCropParams(EmbeddingParams):
    """Views, projector and temperature (Caron et al. 2020, "Unsupervised Learning of Visual ...").

    Attributes:
        whole_view: How the two large views are made.
        small_view: How each small view is made.
        small_views: Number of small views; 0 for none.
        temperature: Temperature τ of the predictions.
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the projections.
    """

    whole_view: View = SIMCLR_VIEW.model_copy(update={"min_scale": 0.14})
    small_view: View = SIMCLR_VIEW.model_copy(
        update={"min_scale": 0.05, "max_scale": 0.14, "size": 96 / 224}
    )
    small_views: Annotated[int, Field(ge=0)] = 6
    temperature: Temperature = 0.1
    hidden_dim: Positive = 2048
    output_dim: Several = 128

    @property
    def views(self) -> tuple[View, ...]:
        """The large views, then the small views."""
        return (self.whole_view,) * LARGE_VIEWS + (self.small_view,) * self.small_views


class TrainedPrototypes(nn.Module):
    """CaSSLe's trained prototypes for the student's predictions.

    The layer has weight normalisation and no bias, as ``distill_prototypes`` of the code of Fini
    et al. (2022). Its lengths are trained, too.
    """

    def __init__(self, width: int, prototypes: int):
        super().__init__()
        self.layer = weight_norm(nn.Linear(width, prototypes, bias=False))

    def forward(self, predicted: Tensor) -> Tensor:
        """Return the products of normalised predictions ``[B, P]`` with prototypes, ``[B, K]``."""
        with torch.autocast(predicted.device.type, enabled=False):
            scores: Tensor = self.layer(F.normalize(predicted.float(), dim=1))
        return scores


def assignment_entropy(scores: Tensor, past: Tensor, prototypes: Tensor, tau: float) -> Tensor:
    """Return the cross-entropy between past and predicted assignments, averaged over images.

    Args:
        scores: Predicted scores of the prototypes, ``[B, K]``.
        past: Past projections, ``[B, P]``.
        prototypes: Prototypes of the last task, ``[K, P]``, each row of length 1.
        tau: Temperature τ of both assignments.
    """
    target = (F.normalize(past, dim=1) @ prototypes.T / tau).softmax(dim=1)
    return F.cross_entropy(scores / tau, target)


def distil_assignments(
    predicted: Sequence[Tensor], past: Sequence[Tensor], prototypes: Tensor, temperature: float
) -> Tensor:
    """Return the cross-entropy between past and predicted assignments, averaged over views.

    CaSSLe's loss for prototypes (Fini et al. 2022, Section 5), where past and predicted projections
    are both assigned to the prototypes of the last task.

    Args:
        predicted: One ``[B, P]`` per view.
        past: One ``[B, P]`` per view.
        prototypes: Prototypes of the last task, ``[K, P]``, each row of length 1.
        temperature: τ.
    """
    total = predicted[0].new_zeros(())
    for new, old in zip(predicted, past, strict=True):
        scores = F.normalize(new, dim=1) @ prototypes.T
        total = total + assignment_entropy(scores, old, prototypes, temperature)
    return total / len(predicted)
