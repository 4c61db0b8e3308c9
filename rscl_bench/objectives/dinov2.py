"""DINOv2 (Oquab et al. 2024, "DINOv2: Learning Robust Visual Features without Supervision")."""

from collections.abc import Sequence
from typing import Annotated

import torch
from lightly.loss import KoLeoLoss
from pydantic import Field, NonNegativeInt
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import ObjectiveOutput
from rscl_bench.objectives.dino import crops
from rscl_bench.objectives.embedding import in_fp32
from rscl_bench.objectives.ibot import IBOT, IBOTParams
from rscl_bench.objectives.self_distillation import PrototypeNorm
from rscl_bench.spec import Fraction, Positive, Several
from rscl_bench.views.view import View

_VIEWS = crops((0.32, 1.0), (0.05, 0.32))


class DINOv2Params(IBOTParams):
    """iBOT's parameters with the defaults of the authors' code, and KoLeo (Oquab et al. 2024).

    Attributes:
        prototype_norm: Norm of the prototypes; see `Prototypes`.
        clip: Largest total norm of the gradients of the encoder with its mask token, and of the
            gradients of the head.
        masked: Share of the global views of a batch that are masked.
        koleo_weight: Weight of the KoLeo loss of each global view.
    """

    first_view: View = _VIEWS[0]
    second_view: View = _VIEWS[1]
    local_view: View = _VIEWS[2]
    local_views: NonNegativeInt = 8
    prototypes: Several = 65536
    prototype_norm: PrototypeNorm = "trained"
    momentum: Fraction = 0.992
    min_block: Positive = 4
    koleo_weight: Annotated[float, Field(ge=0)] = 0.1


class DINOv2(IBOT):
    """iBOT with stratified masks and the KoLeo loss, which spreads features (Section 4)."""

    Params = DINOv2Params
    params: DINOv2Params

    def __init__(self, params: DINOv2Params, encoder: Encoder):
        super().__init__(params, encoder)
        self.koleo = KoLeoLoss()
        if params.koleo_weight:
            self.least_batch = 2  # KoLeo is the distance to the nearest other image

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return iBOT's losses plus KoLeo of both global views; see `Objective.forward`."""
        output = super().forward(views, generator)
        features = [self.encoder.pool(view, self.feature) for view in output.encoded[:2]]
        koleo = torch.stack([in_fp32(self.koleo, view) for view in features]).sum()
        loss = output.loss + self.params.koleo_weight * koleo
        return ObjectiveOutput(loss, output.encoded, output.projected)

    def clip_gradients(self) -> None:
        """Clip the total norm of encoder and mask token, and that of the head (authors' code)."""
        clip = self.params.clip
        nn.utils.clip_grad_norm_([*self.encoder.parameters(), self.token], clip)
        nn.utils.clip_grad_norm_(self.projector.parameters(), clip)

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Return the hidden locations of each view, ``[count, side, side]`` bool.

        The masked views are a random choice; their mask ratios rise in equal steps.
        """
        params, device = self.params, generator.device
        masked = int(count * params.masked)
        jitter = torch.rand(count, generator=generator, device=device)
        rank = torch.randperm(count, generator=generator, device=device)
        step = (params.most_mask - params.least_mask) / max(masked, 1)
        ratios = (params.least_mask + (rank + jitter) * step).where(rank < masked, 0.0)
        return self.blocks(ratios, side, generator)

    def hidden_teacher_logits(self, features: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Return the teacher's logits at hidden locations twice: they also move the centre."""
        logits: Tensor = self.teacher_projector(features[hidden])
        return logits, logits
