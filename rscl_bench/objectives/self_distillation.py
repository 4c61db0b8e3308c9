"""Parts shared by CMID and the DINO family: head, teacher targets, cross-entropy."""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rscl_bench.models import foreach
from rscl_bench.objectives.sinkhorn import sinkhorn

Centering = Literal["mean", "sinkhorn"]
PrototypeNorm = Literal["fixed", "trained", "none"]
_SINKHORN_ITERATIONS = 3


class Prototypes(nn.Module):
    """The last layer of a head: a linear layer without bias, one weight vector per prototype.

    With the norm "fixed", every weight vector has length 1, so that logits are cosines (the default
    of DINO and iBOT). With "trained", the lengths start at 1 and are trained (DINOv2). Both draw
    the directions as ``nn.Linear`` does. With "none", the layer is a plain linear layer of
    deviation 0.02 (DINOv3). All three follow the code of their authors.

    Attributes:
        weight: The weight vectors, ``[K, width]``; their lengths count only with the norm "none".
        length: Lengths of the weight vectors, ``[K, 1]``, with the norm "trained"; else None.
    """

    length: nn.Parameter | None

    def __init__(self, width: int, count: int, norm: PrototypeNorm = "fixed"):
        """Draw ``count`` weight vectors of ``width`` values.

        Args:
            width: Width of the features.
            count: Number K of prototypes.
            norm: What holds for the lengths of the weight vectors.
        """
        super().__init__()
        self.norm = norm
        self.weight = nn.Parameter(torch.empty(count, width))
        self.register_parameter("length", None)
        if norm == "none":
            nn.init.trunc_normal_(self.weight, std=0.02)
            return
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # the initial weights of nn.Linear
        if norm == "trained":
            self.length = nn.Parameter(torch.ones(count, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``[..., K]`` for features ``[..., width]`` of length 1."""
        if self.norm == "none":
            return F.linear(features, self.weight)
        directions = F.normalize(self.weight, dim=1)
        return F.linear(features, directions if self.length is None else self.length * directions)


class DINOHead(nn.Module):
    """Three layers, L2 norm, prototypes (Caron et al. 2021, "Emerging Properties ...", Appendix C).

    lightly has the same head, but with a weight normalisation that cannot be copied after a step.
    """

    def __init__(
        self,
        width: int,
        hidden_dim: int,
        bottleneck_dim: int,
        prototypes: int,
        norm: PrototypeNorm = "fixed",
    ):
        """Build the head.

        Args:
            width: Width of the features.
            hidden_dim: Width of both hidden layers.
            bottleneck_dim: Width before the prototypes.
            prototypes: Number K of prototypes.
            norm: Norm of the prototypes; see `Prototypes`.
        """
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
        self.prototypes = Prototypes(bottleneck_dim, prototypes, norm)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits ``[..., K]`` for features ``[..., width]``."""
        logits: Tensor = self.prototypes(F.normalize(self.layers(features), dim=-1))
        return logits


class TeacherTargets(nn.Module):
    """Turns a teacher's logits into target distributions that resist collapse.

    Centering "mean" subtracts a moving average of the logits before the softmax (Caron et al. 2021,
    Eq. 4). Centering "sinkhorn" uses all prototypes equally within a batch (Caron et al. 2020,
    Section 3).

    Attributes:
        centre: Moving average of the logits, ``[K]``.
    """

    def __init__(self, prototypes: int, momentum: float, centering: Centering):
        """Start with a centre of 0.

        Args:
            prototypes: Number K of prototypes.
            momentum: Momentum of the centre.
            centering: "mean" or "sinkhorn".
        """
        super().__init__()
        self.momentum, self.centering = momentum, centering
        self.centre: Tensor
        self.register_buffer("centre", torch.zeros(prototypes))

    @torch.no_grad()
    def forward(self, logits: Tensor, temperature: float) -> Tensor:
        """Return target distributions ``[n, K]`` float32 for logits ``[n, K]``."""
        logits = logits.float()
        if self.centering == "sinkhorn":
            return sinkhorn(logits, _SINKHORN_ITERATIONS, temperature)
        return F.softmax((logits - self.centre) / temperature, dim=-1)

    @torch.no_grad()
    def update_centre(self, logits: Tensor) -> None:
        """Move the centre towards the mean of logits ``[n, K]``.

        An empty batch (n = 0) leaves the centre unchanged, and so does centering "sinkhorn".
        """
        if len(logits) and self.centering == "mean":
            self.centre.lerp_(logits.float().mean(dim=0), 1 - self.momentum)


def cross_entropies(targets: Tensor, logits: Tensor, temperature: float) -> Tensor:
    """Return −Σ_k target_k log softmax(logits / temperature)_k for every sample, ``[n]``.

    Args:
        targets: Distributions ``[n, K]`` float32.
        logits: Logits of the student, ``[n, K]``.
        temperature: Temperature of the student.
    """
    return -(targets * F.log_softmax(logits.float() / temperature, dim=-1)).sum(dim=-1)


def across_views(targets: Sequence[Tensor], logits: Sequence[Tensor], temperature: float) -> Tensor:
    """Return the mean cross-entropy over all pairs of a teacher's and a different student's view.

    Args:
        targets: Targets of the first views, one ``[B, K]`` float32 per view.
        logits: The student's logits of all views, one ``[B, K]`` per view.
        temperature: Temperature of the student.
    """
    terms = [
        cross_entropies(target, student, temperature).mean()
        for teacher_view, target in enumerate(targets)
        for student_view, student in enumerate(logits)
        if teacher_view != student_view
    ]
    return torch.stack(terms).mean()


def clip_each(parameters: Iterable[nn.Parameter], norm: float) -> None:
    """Clip the gradient of each parameter separately to a maximum norm (DINO, code)."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norms = foreach.norm(gradients)
    foreach.add_(norms, 1e-6)
    foreach.reciprocal_(norms)
    foreach.mul_(norms, norm)
    foreach.clamp_max_(norms, 1.0)
    foreach.mul_(gradients, norms)


def warmed_up(start: float, end: float, share: float, progress: float) -> float:
    """Return a temperature that goes linearly from ``start`` to ``end``, then stays at ``end``.

    Args:
        start: Temperature at the start of a task.
        end: Temperature after the warm-up.
        share: Share of the task that the warm-up takes.
        progress: Share of the task that is done.
    """
    return end if progress >= share else start + (end - start) * progress / share
