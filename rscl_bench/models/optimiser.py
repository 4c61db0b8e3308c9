"""Learning-rate schedule and weight-decay groups."""

import math
from collections.abc import Iterable
from typing import Any

from torch import nn


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Return the learning rate of a step: linear warm-up, then half a cosine down to 0.

    The schedule follows the code of He et al. (2022), per step: the first step of a warm-up has
    rate 0.

    Args:
        step: Index of the step within the task, from 0.
        steps: Number of steps of the task.
        warmup_steps: Number of steps of the warm-up.
        peak: Learning rate at the end of the warm-up.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    progress = (step - warmup_steps) / (steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


def constant_rate(
    step: int, steps: int, warmup_steps: int, peak: float, anneal_steps: int
) -> float:
    """Return the rate of a step: linear warm-up, then the peak, then 1 − √ down to 0.

    The fall is the "(1-sqrt)" of Hägele et al. (2024), "Scaling Laws and Compute-Optimal Training
    Beyond Fixed Training Durations".

    Args:
        step: As in `learning_rate`.
        steps: As in `learning_rate`.
        warmup_steps: As in `learning_rate`.
        peak: As in `learning_rate`.
        anneal_steps: Number of the last steps in which the rate falls.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    annealed = step - (steps - anneal_steps)
    return peak if annealed < 0 else peak * (1 - math.sqrt(annealed / anneal_steps))


def warmup_steps(warmup_epochs: float, steps_per_epoch: int, steps: int) -> int:
    """Return the number of steps of a warm-up, rounded, and fewer than all steps.

    Args:
        warmup_epochs: Epochs of the warm-up.
        steps_per_epoch: Number of steps of an epoch.
        steps: Number of steps of the training.
    """
    return max(0, min(round(warmup_epochs * steps_per_epoch), steps - 1))


def weight_decay_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Return two AdamW groups of the trained parameters: with weight decay, then without.

    Parameters of one dimension (biases, norms) do not decay (He et al. 2022, code). Unlike
    `timm.optim.param_groups_weight_decay`, the result has both groups in this order for every
    ``weight_decay``, 0 included, so that the indices in a saved optimiser state are always valid.
    """
    trained = [p for module in modules for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]
