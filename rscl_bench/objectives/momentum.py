"""Momentum teachers: copies of modules whose weights follow by a moving average."""

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from rscl_bench.models import foreach

Module = TypeVar("Module", bound=nn.Module)


def teacher_copy(module: Module) -> Module:
    """Return a copy that takes no gradient; as a sub-module it is saved with the rest."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set θ_teacher ← m θ_teacher + (1 − m) θ_student.

    Buffers, such as running statistics, are the teacher's own: it sees views itself.

    Args:
        teacher: Follows.
        student: Of the same kind.
        momentum: m.
    """
    old: list[Tensor] = list(teacher.parameters())
    foreach.lerp_(old, list(student.parameters()), 1 - momentum)


def cosine_to_one(start: float, progress: float) -> float:
    """Return a momentum that rises from a start to 1 along half a cosine.

    Grill et al. (2020), "Bootstrap your own latent", Section 3.1:
    1 − (1 − start) (cos π k + 1) / 2.
    In a stream it starts anew in every task, as the learning rate does.

    Args:
        start: At the start of a task.
        progress: Share k of the task that is done.
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
