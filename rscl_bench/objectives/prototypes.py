"""What SwAV and DeepCluster v2 share: crops of two sizes, and assignments to prototypes."""

from collections.abc import Sequence
from typing import Annotated

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rscl_bench.models.encoder import Pool
from rscl_bench.objectives.embedding import SIMCLR_VIEW, Temperature
from rscl_bench.spec import Positive, Spec
from rscl_bench.views.view import View

#: Views that assignments are made of; the others only predict them.
WHOLE = 2


class MultiCropParams(Spec):
    """Views, projector and temperature (Caron et al. 2020, "Unsupervised Learning of Visual ...").

    Attributes:
        whole_view: How the two large views are made, of which assignments come.
        small_view: How small views are made.
        small_views: How many of them; 0 for none.
        temperature: τ.
        hidden_dim: Hidden width of the projector.
        output_dim: Width of the projections.
        feature: What is projected: mean patch token, or class token.
    """

    whole_view: View = SIMCLR_VIEW.model_copy(update={"min_scale": 0.14})
    small_view: View = SIMCLR_VIEW.model_copy(
        update={"min_scale": 0.05, "max_scale": 0.14, "size": 96 / 224}
    )
    small_views: Annotated[int, Field(ge=0)] = 6
    temperature: Temperature = 0.1
    hidden_dim: Positive = 2048
    output_dim: Positive = 128
    feature: Pool = "patches"

    @property
    def views(self) -> tuple[View, ...]:
        """Large views, then small ones."""
        return (self.whole_view,) * WHOLE + (self.small_view,) * self.small_views


def distil_assignments(
    predicted: Sequence[Tensor], past: Sequence[Tensor], prototypes: Tensor, temperature: float
) -> Tensor:
    """Return the cross-entropy of past and predicted assignments, averaged over views.

    CaSSLe for prototypes (Fini et al. 2022, Section 5), of which both sides take the past ones.

    Args:
        predicted: One ``[B, P]`` per view.
        past: The same.
        prototypes: ``[K, P]``, each of length 1.
        temperature: τ.
    """
    total = predicted[0].new_zeros(())
    for new, old in zip(predicted, past, strict=True):
        target = (F.normalize(old, dim=1) @ prototypes.T / temperature).softmax(dim=1)
        total = total + F.cross_entropy(
            F.normalize(new, dim=1) @ prototypes.T / temperature, target
        )
    return total / len(predicted)
