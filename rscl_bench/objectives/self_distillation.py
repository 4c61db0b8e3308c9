"""What DINO, iBOT, DINOv2 and DINOv3 share: head, centred targets, cross-entropy."""

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from lightly.loss.swav_loss import sinkhorn
from torch import Tensor, nn

from rscl_bench.models import foreach

Centering = Literal["mean", "sinkhorn"]
_SINKHORN_ITERATIONS = 3


class Prototypes(nn.Module):
    """Cosines with K directions: a linear layer whose weight vectors are normalised."""

    def __init__(self, width: int, count: int):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, width))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, features: Tensor) -> Tensor:
        """Return ``[..., K]`` for features ``[..., width]`` of norm 1."""
        return F.linear(features, F.normalize(self.weight, dim=1))


class DINOHead(nn.Module):
    """Three layers, L2 norm, prototypes (Caron et al. 2021, "Emerging Properties ...", Appendix C).

    lightly's head is the same, but its weight normalisation cannot be copied after a step.
    """

    def __init__(self, width: int, hidden_dim: int, bottleneck_dim: int, prototypes: int):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(width, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, bottleneck_dim),
        )
        for layer in self.layers:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = Prototypes(bottleneck_dim, prototypes)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``[..., K]`` of features ``[..., width]``."""
        logits: Tensor = self.prototypes(F.normalize(self.layers(features), dim=-1))
        return logits


class TeacherTargets(nn.Module):
    """Turns a teacher's logits into distributions that cannot all be one.

    ``mean`` subtracts a moving average of the logits, then sharpens (Caron et al. 2021, Eq. 4);
    ``sinkhorn`` uses all prototypes alike within the batch (Caron et al. 2020, Section 3).
    """

    def __init__(self, prototypes: int, momentum: float, centering: Centering):
        super().__init__()
        self.momentum, self.centering = momentum, centering
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(prototypes))

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Return distributions ``[n, K]`` float32 of logits ``[n, K]``."""
        logits = logits.float()
        if self.centering == "sinkhorn":
            assigned: Tensor = sinkhorn(logits, _SINKHORN_ITERATIONS, temperature)
            return assigned
        return F.softmax((logits - self.centre) / temperature, dim=-1)

    @torch.no_grad()
    def update_centre(self, logits: Tensor) -> None:
        """Move the centre towards the mean of logits ``[n, K]``; none leave it where it is."""
        if len(logits) and self.centering == "mean":
            self.centre.lerp_(logits.float().mean(dim=0), 1 - self.momentum)


def cross_entropies(targets: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return −Σ_k target log softmax(logits / temperature) of every sample, ``[n]``.

    Args:
        targets: Distributions ``[n, K]`` float32.
        logits: Of the student, ``[n, K]``.
        temperature: Of the student.
    """
    return -(targets * F.log_softmax(logits.float() / temperature, dim=-1)).sum(dim=-1)


def across_views(targets: Sequence[Tensor], logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Return the mean cross-entropy over all pairs of a teacher's view and another student's view.

    Args:
        targets: Of the first views, each ``[B, K]`` float32.
        logits: Of all views, each ``[B, K]``.
        temperature: Of the student.
    """
    terms = [
        cross_entropies(target, own, temperature).mean()
        for first, target in enumerate(targets)
        for second, own in enumerate(logits)
        if first != second
    ]
    return torch.stack(terms).mean()


def clip_each(parameters: Iterable[nn.Parameter], norm: float) -> None:
    """Scale the gradient of every parameter to a norm at most, each on its own (DINO, code)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = foreach.norm(gradients)
    foreach.add_(norms, 1e-6)
    foreach.reciprocal_(norms)
    foreach.mul_(norms, norm)
    foreach.clamp_max_(norms, 1.0)
    foreach.mul_(gradients, norms)


def warmed_up(start: float, end: float, share: float, progress: float) -> float:
    """Return a temperature that goes from start to end in a share of a task, and stays there.

    Args:
        start: At the start of a task.
        end: After the warm-up.
        share: Of the task that the warm-up takes.
        progress: Share of the task that is done.
    """
    return end if progress >= share else start + (end - start) * progress / share
