"""DINO (Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers")."""

from collections.abc import Sequence
from typing import Annotated, Self

import torch
from pydantic import Field, NonNegativeInt, model_validator
from torch import Tensor

from rscl_bench.models.encoder import Encoder, Pool
from rscl_bench.objectives.base import Objective, ObjectiveOutput, StepInfo
from rscl_bench.objectives.embedding import BYOL_COLOURS, Temperature, forward_multicrop
from rscl_bench.objectives.momentum import cosine_to_one, ema_update, teacher_copy
from rscl_bench.objectives.self_distillation import (
    Centering,
    DINOHead,
    TeacherTargets,
    across_views,
    clip_each,
    cross_entropies,
    warmed_up,
)
from rscl_bench.spec import Fraction, Positive, Spec
from rscl_bench.views.view import View


def crops(
    global_scale: tuple[float, float], local_scale: tuple[float, float]
) -> tuple[View, View, View]:
    """Return two global views and a local one, whose side is 96 where the global ones' is 224.

    Args:
        global_scale: Smallest and largest share of a tile's area.
        local_scale: The same of local views.
    """

    def view(scale: tuple[float, float], **changes: float) -> View:
        chosen = {"min_scale": scale[0], "max_scale": scale[1], **changes}
        return BYOL_COLOURS.model_copy(update=chosen)

    return (
        view(global_scale, blur=1.0),
        view(global_scale, blur=0.1, solarise=0.2),
        view(local_scale, blur=0.5, size=96 / 224),
    )


class DINOParams(Spec):
    """Views, head, targets and teacher (Caron et al. 2021, Section 3.1 and Appendix; their code).

    Attributes:
        first_view: How the first global view is made.
        second_view: How the second global view is made.
        local_view: How every local view is made.
        local_views: How many local views there are.
        hidden_dim: Hidden width of the head.
        bottleneck_dim: Width before the prototypes.
        prototypes: Prototypes K.
        student_temperature: τ_s.
        start_temperature: Teacher's τ_t at the start of a task.
        teacher_temperature: τ_t after its warm-up.
        warmup: Share of a task that the warm-up of τ_t takes; the authors take 30 of 300 epochs.
        centring: What keeps targets from being all one.
        centre_momentum: Of the centre.
        momentum: Of the teacher at the start of a task; it rises to 1.
        frozen_epochs: Epochs of a task in which the prototypes stay.
        clip: Largest norm of the gradient of a parameter.
        feature: What the head gets: class token, or mean patch token.
    """

    first_view: View = crops((0.4, 1.0), (0.05, 0.4))[0]
    second_view: View = crops((0.4, 1.0), (0.05, 0.4))[1]
    local_view: View = crops((0.4, 1.0), (0.05, 0.4))[2]
    local_views: NonNegativeInt = 8
    hidden_dim: Positive = 2048
    bottleneck_dim: Positive = 256
    prototypes: Positive = 65536
    student_temperature: Temperature = 0.1
    start_temperature: Temperature = 0.04
    teacher_temperature: Temperature = 0.07
    warmup: Fraction = 0.1
    centring: Centering = "mean"
    centre_momentum: Fraction = 0.9
    momentum: Fraction = 0.996
    frozen_epochs: NonNegativeInt = 1
    clip: Annotated[float, Field(gt=0)] = 3.0
    feature: Pool = "cls"

    @model_validator(mode="after")
    def _global_views_are_of_one_size(self) -> Self:
        if self.first_view.size != self.second_view.size:
            raise ValueError("first_view and second_view must have one size")
        return self


class DINO(Objective):
    """Every view predicts the distribution over prototypes of a momentum teacher's global views."""

    Params = DINOParams
    momentum = True
    projector: DINOHead

    def __init__(self, params: DINOParams, encoder: Encoder):
        """Build head and teacher.

        Args:
            params: Views, head, targets and teacher.
            encoder: Any; one without a class token needs ``feature`` "patches".

        Raises:
            SpecError: If the encoder cannot pool as ``feature`` says.
        """
        super().__init__(params, encoder)
        self.params = params
        self.feature = params.feature
        encoder.check_pool(params.feature)
        both = (params.first_view, params.second_view)
        self.views = (*both, *[params.local_view] * params.local_views)
        self.projector = DINOHead(
            encoder.feature_dim, params.hidden_dim, params.bottleneck_dim, params.prototypes
        )
        self.projected_dim = params.prototypes
        self.teacher = teacher_copy(encoder)
        self.teacher_projector = teacher_copy(self.projector)
        self.targets = TeacherTargets(params.prototypes, params.centre_momentum, params.centring)
        self.temperature = params.start_temperature

    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the loss over all pairs of views; see `Objective.forward`."""
        encoded = tuple(forward_multicrop(self.encoder, views))
        logits = self.logits(encoded)
        with torch.no_grad():
            seen = self.teacher(torch.cat([*views[:2]]))
            taught = self.teacher_projector(self.teacher.pool(seen, self.feature))
        loss = self.compare(taught, logits)
        return ObjectiveOutput(loss, encoded, tuple(logits))

    def logits(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        """Return the head's logits of every view, ``[B, K]`` each."""
        pooled = [self.encoder.pool(one, self.feature) for one in encoded]
        return list(self.projector(torch.cat(pooled)).chunk(len(pooled)))

    def compare(self, taught: Tensor, logits: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy between views, and let the centre follow.

        Args:
            taught: The teacher's logits of both global views, ``[2 B, K]``.
            logits: The student's of all views, each ``[B, K]``.
        """
        with torch.autocast(taught.device.type, enabled=False):
            targets = self.targets(taught, self.temperature).chunk(2)
            loss = across_views(targets, logits, self.params.student_temperature)
            self.targets.update_centre(taught)
        return loss

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy with the past distribution, averaged over views."""
        student, teacher = self.params.student_temperature, self.params.teacher_temperature
        terms = [
            cross_entropies(torch.softmax(old / teacher, dim=-1), new, student).mean()
            for new, old in zip(predicted, past, strict=True)
        ]
        return torch.stack(terms).mean()

    def before_step(self, info: StepInfo) -> None:
        """Set the teacher's temperature."""
        params = self.params
        self.temperature = warmed_up(
            params.start_temperature, params.teacher_temperature, params.warmup, info.progress
        )

    def before_update(self, info: StepInfo) -> None:
        """Clip gradients, and leave the prototypes as they are in the first epochs of a task."""
        clip_each((p for p in self.parameters() if p.requires_grad), self.params.clip)
        if info.epoch < self.params.frozen_epochs:
            self.projector.prototypes.weight.grad = None

    def after_update(self, info: StepInfo) -> None:
        """Let the teacher follow."""
        momentum = cosine_to_one(self.params.momentum, info.progress)
        ema_update(self.teacher, self.encoder, momentum)
        ema_update(self.teacher_projector, self.projector, momentum)
