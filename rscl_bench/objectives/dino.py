"""DINO (Caron et al. 2021, "Emerging Properties in Self-Supervised Vision Transformers")."""

from collections.abc import Sequence
from typing import Annotated, Self

import torch
from pydantic import Field, NonNegativeInt, model_validator
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.models.momentum import cosine_to_one, ema_update, teacher_copy
from rscl_bench.objectives.base import Objective, ObjectiveOutput, StepInfo, TeacherParams
from rscl_bench.objectives.embedding import BYOL_COLOURS, Temperature, forward_multicrop
from rscl_bench.objectives.self_distillation import (
    Centering,
    DINOHead,
    PrototypeNorm,
    TeacherTargets,
    across_views,
    clip_each,
    cross_entropies,
    warmed_up,
)
from rscl_bench.spec import Fraction, Pool, Positive, Several
from rscl_bench.views.view import View


def crops(
    global_scale: tuple[float, float], local_scale: tuple[float, float]
) -> tuple[View, View, View]:
    """Return two global views and a local view; their sides relate as 224 to 96.

    Args:
        global_scale: Smallest and largest share of a tile's area that a global view shows.
        local_scale: Smallest and largest share of a tile's area that a local view shows.
    """

    def view(scale: tuple[float, float], **changes: float) -> View:
        values = {"min_scale": scale[0], "max_scale": scale[1], **changes}
        return BYOL_COLOURS.model_copy(update=values)

    return (
        view(global_scale, blur=1.0),
        view(global_scale, blur=0.1, solarise=0.2),
        view(local_scale, blur=0.5, size=96 / 224),
    )


class DINOParams(TeacherParams):
    """Views, head, targets and teacher (Caron et al. 2021, Section 3.1 and Appendix; their code).

    Attributes:
        first_view: How the first global view is made.
        second_view: How the second global view is made.
        local_view: How every local view is made.
        local_views: Number of local views.
        hidden_dim: Hidden width of the head.
        bottleneck_dim: Width before the prototypes.
        prototypes: Number K of prototypes.
        prototype_norm: Norm of the prototypes; see `Prototypes`.
        student_temperature: Temperature τ_s of the student.
        start_temperature: Temperature τ_t of the teacher at the start of a task.
        teacher_temperature: Temperature τ_t of the teacher after its warm-up.
        warmup: Share of a task that the warm-up of τ_t takes; the authors take 30 of 300 epochs.
        centring: How the targets are kept from collapsing; see `TeacherTargets`.
        centre_momentum: Momentum of the centre of the targets.
        momentum: Momentum of the teacher at the start of a task. It rises to 1 (`cosine_to_one`).
        frozen_epochs: Number of epochs at the start of a task in which the prototypes are frozen.
        clip: Largest norm of the gradient of a parameter.
        feature: Input of the head: the class token, or the mean patch token.
    """

    first_view: View = crops((0.4, 1.0), (0.05, 0.4))[0]
    second_view: View = crops((0.4, 1.0), (0.05, 0.4))[1]
    local_view: View = crops((0.4, 1.0), (0.05, 0.4))[2]
    local_views: NonNegativeInt = 8
    hidden_dim: Positive = 2048
    bottleneck_dim: Several = 256
    prototypes: Several = 65536
    prototype_norm: PrototypeNorm = "fixed"
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
            raise ValueError("first_view and second_view must have the same size")
        return self


class DINO(Objective):
    """Predicts a momentum teacher's distribution over prototypes, from every view.

    The teacher sees the two global views; the student sees all views.
    """

    Params = DINOParams
    momentum = True
    projector: DINOHead

    def __init__(self, params: DINOParams, encoder: Encoder):
        """Build head and teacher.

        Args:
            params: Views, head, targets and teacher.
            encoder: Any encoder. An encoder without a class token needs ``feature`` "patches".

        Raises:
            SpecError: If the encoder cannot pool ``params.feature``.
        """
        super().__init__(params, encoder)
        self.params = params
        self.feature = params.feature
        if params.centring == "sinkhorn":
            self.least_batch = 2  # assignments are balanced over the images of a batch
        encoder.check_pool(params.feature)
        global_views = (params.first_view, params.second_view)
        self.views = (*global_views, *[params.local_view] * params.local_views)
        self.projector = DINOHead(
            encoder.feature_dim,
            params.hidden_dim,
            params.bottleneck_dim,
            params.prototypes,
            params.prototype_norm,
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
            teacher_encoded = self.teacher(torch.cat([*views[:2]]))
            teacher_pooled = self.teacher.pool(teacher_encoded, self.feature)
            teacher_logits = self.teacher_projector(teacher_pooled)
        loss = self.compare(teacher_logits, logits)
        return ObjectiveOutput(loss, encoded, tuple(logits))

    def logits(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        """Return the head's logits, one ``[B, K]`` per view."""
        pooled = [self.encoder.pool(view, self.feature) for view in encoded]
        return list(self.projector(torch.cat(pooled)).chunk(len(pooled)))

    def compare(self, teacher_logits: Tensor, logits: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy between views, and update the centre of the targets.

        Args:
            teacher_logits: The teacher's logits of both global views, ``[2 B, K]``.
            logits: The student's logits of all views, one ``[B, K]`` per view.
        """
        with torch.autocast(teacher_logits.device.type, enabled=False):
            targets = self.targets(teacher_logits, self.temperature).chunk(2)
            loss = across_views(targets, logits, self.params.student_temperature)
            self.targets.update_centre(teacher_logits)
        return loss

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy between past and predicted distributions, averaged over views.

        Both are distributions over prototypes.
        """
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
        """Clip the gradients, and freeze the prototypes in the first epochs of a task."""
        self.clip_gradients()
        if info.epoch < self.params.frozen_epochs:
            for parameter in self.projector.prototypes.parameters():
                parameter.grad = None

    def clip_gradients(self) -> None:
        """Clip the gradient of each parameter separately, as the code of DINO and iBOT does."""
        clip_each((p for p in self.parameters() if p.requires_grad), self.params.clip)

    def after_update(self, info: StepInfo) -> None:
        """Update the teacher."""
        momentum = cosine_to_one(self.params.momentum, info.progress)
        ema_update(self.teacher, self.encoder, momentum)
        ema_update(self.teacher_projector, self.projector, momentum)
