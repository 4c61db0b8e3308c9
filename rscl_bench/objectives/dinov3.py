"""DINOv3 (Siméoni et al. 2025, "DINOv3"): DINOv2 with Gram anchoring."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.models.momentum import teacher_copy
from rscl_bench.objectives.base import ObjectiveOutput, TileSampler
from rscl_bench.objectives.dinov2 import DINOv2, DINOv2Params
from rscl_bench.objectives.embedding import in_fp32
from rscl_bench.objectives.self_distillation import Centering, PrototypeNorm


class DINOv3Params(DINOv2Params):
    """DINOv2's parameters with Sinkhorn targets and Gram anchoring (Siméoni et al. 2025).

    Attributes:
        gram_weight: Weight of the Gram loss.
    """

    prototype_norm: PrototypeNorm = "none"
    centring: Centering = "sinkhorn"
    gram_weight: Annotated[float, Field(ge=0)] = 2.0


class DINOv3(DINOv2):
    """DINOv2 that preserves the similarities between locations of an image (Gram anchoring, Eq. 2).

    The Gram teacher is the momentum teacher at the end of the last task; in the paper, the Gram
    teacher is an early teacher of the same training. The first task has no Gram teacher.
    """

    Params = DINOv3Params
    params: DINOv3Params

    def __init__(self, params: DINOv3Params, encoder: Encoder):
        super().__init__(params, encoder)
        self.gram_teacher = teacher_copy(encoder)
        self.anchored = False

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return DINOv2's losses plus, from the second task on, the Gram loss (Section 4)."""
        output = super().forward(views, generator)
        if not self.anchored:
            return output
        with torch.no_grad():
            past = self.gram_teacher.locations(self.gram_teacher(torch.cat([*views[:2]])))
        now = torch.cat([self.encoder.locations(view) for view in output.encoded[:2]])
        loss = output.loss + self.params.gram_weight * in_fp32(gram_loss, now, past)
        return ObjectiveOutput(loss, output.encoded, output.projected)

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Switch the Gram loss on from the second task on."""
        super().before_task(task, sample)
        self.anchored = task > 0

    def after_task(self, task: int) -> None:
        """Copy the momentum teacher to the Gram teacher."""
        super().after_task(task)
        self.gram_teacher.load_state_dict(self.teacher.state_dict())


def gram_loss(now: Tensor, past: Tensor) -> Tensor:
    """Return the mean squared difference of the cosines between locations (Eq. 2).

    The mean is over all pairs of locations and over images.

    Args:
        now: The student's features, ``[B, N, D]`` float32.
        past: The Gram teacher's features, ``[B, N, D]`` float32.
    """
    now, past = F.normalize(now, dim=-1), F.normalize(past, dim=-1)
    return F.mse_loss(now @ now.transpose(1, 2), past @ past.transpose(1, 2))
