"""Learning rate of a step, and which parameters decay."""

import math
from collections.abc import Iterable, Iterator
from typing import Any

from torch import nn


def learning_rate(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Return the rate of a step: linear warm-up, then half a cosine to 0.

    As He et al. (2022) in their code, per step: the first step of a warm-up has rate 0.

    Args:
        step: From 0.
        steps: Steps of the task.
        warmup_steps: Steps of the warm-up.
        peak: Rate at its end.
    """
    if step < warmup_steps:
        return peak * step / warmup_steps
    done = (step - warmup_steps) / (steps - warmup_steps)
    return peak * 0.5 * (1 + math.cos(math.pi * done))


def weight_decay_groups(modules: Iterable[nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    """Return AdamW's groups: no decay on parameters of one dimension (He et al. 2022, code)."""
    trained = list(_trained(modules))
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _trained(modules: Iterable[nn.Module]) -> Iterator[nn.Parameter]:
    for module in modules:
        yield from (p for p in module.parameters() if p.requires_grad)
