"""Distillation from a past encoder, the base of PFR and model mixup."""

import copy
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from rscl_bench.models.compiled import compile_blocks, is_compiled
from rscl_bench.models.encoder import Encoder, keep_in_autocast_dtype
from rscl_bench.spec import Pool, Spec
from rscl_bench.strategies.base import Context, Strategy, Trainer


class Distillation(Strategy):
    """From the second task on, adds w · distance(g(student), teacher), averaged over the views.

    The student's feature is pooled from the encoder's output in the objective, where the view may
    be masked. The teacher sees the whole view, without gradient. Views that only a teacher of the
    objective sees take no part. g is ``head``. Distillation needs
    nothing but an encoder, so any objective will do.

    Attributes:
        weight: w; with 0, the teacher is not evaluated.
        feature: Pooling of student and teacher.
        student: The encoder that is trained.
        previous: The encoder at the end of the last task; None in the first task.
    """

    weight: float
    feature: Pool = "patches"

    def __init__(self, params: Spec, context: Context):
        super().__init__(params, context)
        self.student = context.objective.encoder
        self.previous: Encoder | None = None

    @abstractmethod
    def distance(self, student: Tensor, teacher: Tensor) -> Tensor:
        """Return the distance of projected student and teacher features, ``[B, D]`` float32."""

    def teacher(self, trainer: Trainer) -> Encoder | None:
        """Return the teacher of the step; None in the first task."""
        if self.previous is not None:
            keep_in_autocast_dtype(self.previous, self.context.device.type)
        return self.previous

    def before_backward(self, trainer: Trainer, **_: Any) -> None:
        """Add the distillation."""
        teacher = self.teacher(trainer) if self.weight else None
        if teacher is None:
            return
        losses = [
            self._distance(view, encoded, teacher)
            for view, encoded in zip(trainer.views, trainer.mb_output.encoded, strict=False)
        ]
        trainer.loss = trainer.loss + self.weight * torch.stack(losses).mean()

    def _distance(self, view: Tensor, encoded: Tensor, teacher: Encoder) -> Tensor:
        assert self.head is not None
        with torch.no_grad():
            target = teacher.pool(teacher(view), self.feature)
        student: Tensor = self.head(self.student.pool(encoded, self.feature))
        with torch.autocast(view.device.type, enabled=False):  # losses are fp32
            return self.distance(student.float(), target.float())

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Keep the encoder for the next task."""
        self.previous = frozen_encoder(self.student)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the previous encoder."""
        return {} if self.previous is None else dict(self.previous.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the previous encoder."""
        self.previous = None
        if state:
            self.previous = frozen_encoder(self.student)
            self.previous.load_state_dict(state)


def frozen_encoder(encoder: Encoder) -> Encoder:
    """Return a copy of an encoder, in evaluation mode and without gradient."""
    frozen = copy.deepcopy(encoder).requires_grad_(False).eval()
    if is_compiled(encoder):
        compile_blocks(frozen)
    return frozen
