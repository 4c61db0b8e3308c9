"""Momentum teachers: modules whose weights are a moving average of a student's weights."""

import copy
import math
from typing import TypeVar

import torch
from torch import Tensor, nn

from rscl_bench.models import foreach

Module = TypeVar("Module", bound=nn.Module)


def teacher_copy(module: Module) -> Module:
    """Return a copy without gradient. Assigned as a submodule, it is part of ``state_dict``."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def ema_update(teacher: nn.Module, student: nn.Module, momentum: float) -> None:
    """Set θ_teacher ← m θ_teacher + (1 − m) θ_student.

    Only parameters are averaged. Buffers such as running statistics stay as they are, because the
    teacher updates its running statistics in its own forward passes.

    Args:
        teacher: The module that is changed.
        student: A module with the same parameters.
        momentum: m.
    """
    averaged: list[Tensor] = list(teacher.parameters())
    foreach.lerp_(averaged, list(student.parameters()), 1 - momentum)


def cosine_to_one(start: float, progress: float) -> float:
    """Return a momentum that rises from ``start`` to 1 along half a cosine.

    Grill et al. (2020), "Bootstrap your own latent", Section 3.1:
    1 − (1 − start) (cos π k + 1) / 2.
    In a stream, the schedule starts anew with every task, like the learning rate.

    Args:
        start: Momentum at the start of a task.
        progress: Share k of the task that is done.
    """
    return 1 - (1 - start) * (math.cos(math.pi * progress) + 1) / 2
