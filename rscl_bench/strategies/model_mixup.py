"""Model mixup (CoSMAE, Eq. 3 to 5): distils from a mixture of old and current weights."""

from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from lightly.loss import NTXentLoss
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.models import foreach
from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.embedding import Temperature
from rscl_bench.randomness import seeded
from rscl_bench.spec import Pool, Positive
from rscl_bench.strategies.base import Context, Trainer
from rscl_bench.strategies.distillation import Distillation, frozen_encoder
from rscl_bench.strategies.mixing import MixingParams


class ModelMixupParams(MixingParams):
    """The teacher's mixture and the distillation loss.

    Attributes:
        beta: Weight β of the distillation loss; with 0, there is no distillation.
        temperature: τ of the contrastive loss.
        loss: ``ntxent`` contrasts all 2B features; ``eq4`` is Eq. 4 as printed: student against
            teacher and teacher against student, without the positive in the denominators.
        feature: Pooling of student and teacher: mean patch token, or class token.
        hidden_dim: Hidden width of the projector.
        keep_projector: Whether one projector is trained on all tasks, or a new one on each task.
    """

    beta: Annotated[float, Field(ge=0)] = 0.1
    temperature: Temperature = 0.5
    loss: Literal["ntxent", "eq4"] = "ntxent"
    feature: Pool = "patches"
    hidden_dim: Positive = 128
    keep_projector: bool = True


class ModelMixup(Distillation):
    """From the second task on, adds β · L_MIM between student and a mixed teacher.

    The teacher's weights are θ̃ = λ2 θ_t + (1 − λ2) θ_{t−1} (Eq. 3), encoder only, with λ2 ~
    Beta(α2, α2) drawn at every step and the current θ_t.
    """

    Params = ModelMixupParams

    def __init__(self, params: ModelMixupParams, context: Context):
        super().__init__(params, context)
        self.params = params
        self.weight, self.feature = params.beta, params.feature
        self.head = self._projector(0)
        self.least_batch = 2 if params.beta else 1  # a contrast needs another image
        self.mixed: Encoder | None = None
        self.ntxent = NTXentLoss(temperature=params.temperature)

    def _projector(self, task: int) -> nn.Module:
        """Return D → hidden → ReLU → D; the cosine needs the teacher's width D."""
        width, hidden = self.student.feature_dim, self.params.hidden_dim
        with seeded(self.context.seed, "model-mixup projector", task):
            layers = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        return layers.to(self.context.device)

    def before_train_dataset_adaptation(self, trainer: Trainer, **_: Any) -> None:
        """Make a new projector unless the projector persists; the optimiser is made afterwards."""
        if trainer.task > 0 and not self.params.keep_projector:
            self.head = self._projector(trainer.task)

    def teacher(self, trainer: Trainer) -> Encoder | None:
        """Return the mixed encoder θ̃ of this step; None in the first task."""
        if self.previous is None:
            return None
        if self.mixed is None:
            self.mixed = frozen_encoder(self.student)
        (weight,) = self.params.draw(
            1, self.context.seed, "model-mixup", trainer.task, trainer.step
        )
        mix_weights(self.mixed, self.previous, self.student, weight)
        return self.mixed

    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return L_MIM (Eq. 4)."""
        if self.params.loss == "eq4":
            return literal_eq4(student, teacher, self.params.temperature)
        loss: Tensor = self.ntxent(student, teacher)
        return loss


@torch.no_grad()
def mix_weights(teacher: Encoder, previous: Encoder, current: Encoder, weight: float) -> None:
    """Set θ̃ = λ θ_t + (1 − λ) θ_{t−1} in place (CoSMAE, Eq. 3).

    Args:
        teacher: Receives θ̃.
        previous: Holds θ_{t−1}.
        current: Holds θ_t; its buffers are copied, not mixed.
        weight: λ.
    """
    mixed: list[Tensor] = list(teacher.parameters())
    foreach.copy_(mixed, list(previous.parameters()))
    foreach.lerp_(mixed, list(current.parameters()), weight)
    for target, source in zip(teacher.buffers(), current.buffers(), strict=True):
        target.copy_(source)


def literal_eq4(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return Eq. 4 of CoSMAE as printed: the positive is in neither denominator.

    Every student feature is compared with the teacher's features of the other images, and every
    teacher feature with the student's features of the other images. With S the cosine, this is
    1/(2B) Σ_i [log Σ_{q≠i} e^{S(s_i, t_q)/τ} + log Σ_{q≠i} e^{S(t_i, s_q)/τ} − 2 S(s_i, t_i)/τ].

    Args:
        student: Projected student features, ``[B, D]``.
        teacher: Teacher features, ``[B, D]``.
        temperature: τ.

    Returns:
        The mean over the 2B comparisons, a scalar; may be negative.
    """
    similarity = F.normalize(student, dim=1) @ F.normalize(teacher, dim=1).T / temperature
    positive = similarity.diagonal()
    itself = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
    others = similarity.masked_fill(itself, float("-inf"))
    by_student, by_teacher = others.logsumexp(dim=1), others.logsumexp(dim=0)
    return ((by_student + by_teacher) / 2 - positive).mean()
