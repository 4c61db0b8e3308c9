"""Learning rate of a step."""

import math


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
