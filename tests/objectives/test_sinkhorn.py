"""Sinkhorn iterations against lightly's, and against float64 where lightly's overflow."""

import pytest
import torch
from lightly.loss.swav_loss import sinkhorn as lightlys
from torch import Tensor

from rscl_bench.objectives.deepcluster_v2 import _EPSILON
from rscl_bench.objectives.dino import DINOParams
from rscl_bench.objectives.self_distillation import TeacherTargets
from rscl_bench.objectives.sinkhorn import sinkhorn
from rscl_bench.objectives.swav import SwAVParams
from rscl_bench.spec import Spec


def least(params: type[Spec], field: str) -> float:
    """Return the least allowed value of a parameter."""
    return next(float(m.ge) for m in params.model_fields[field].metadata if hasattr(m, "ge"))


def cosines(samples: int, prototypes: int, generator: torch.Generator) -> Tensor:
    """Return cosines of which some are exactly 1 and -1."""
    table = 2 * torch.rand(samples, prototypes, generator=generator) - 1
    table[0, 0], table[-1, -1], table[0, -1] = 1.0, 1.0, -1.0
    table[1] = -1.0  # a sample that is as far from all prototypes as can be
    return table


def slow(scores: Tensor, iterations: int, epsilon: float) -> Tensor:
    """Return the codes with plain sums in float64, from scores whose largest is 0 in every row."""
    table = ((scores.double() - scores.double().max()) / epsilon).exp().clamp(min=1e-320)
    for _ in range(iterations):
        table = table / table.sum(dim=0, keepdim=True)
        table = table / table.sum(dim=1, keepdim=True)
    return table


@pytest.mark.parametrize("epsilon", [0.05, 0.5])
@pytest.mark.parametrize("iterations", [1, 3, 10])
def test_codes_equal_lightlys(epsilon: float, iterations: int) -> None:
    scores = cosines(12, 30, torch.Generator().manual_seed(0))
    expected = lightlys(scores, iterations, epsilon)
    torch.testing.assert_close(
        sinkhorn(scores, iterations, epsilon), expected, atol=2e-6, rtol=1e-4
    )


@pytest.mark.parametrize("epsilon", [0.0113, 0.005, 1e-3])
@pytest.mark.parametrize("shape", [(16, 300), (64, 8), (2, 2), (3, 1)])
def test_small_epsilon_equals_float64(epsilon: float, shape: tuple[int, int]) -> None:
    """Scores within ±0.25 keep the sums of float64 from vanishing."""
    scores = 0.25 * cosines(*shape, torch.Generator().manual_seed(0))
    codes = sinkhorn(scores, 3, epsilon)
    torch.testing.assert_close(codes.double(), slow(scores, 3, epsilon), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "epsilon",
    [
        least(SwAVParams, "epsilon"),
        least(DINOParams, "start_temperature"),
        least(DINOParams, "teacher_temperature"),
        _EPSILON,
    ],
)
def test_least_epsilon_is_finite_and_balanced(epsilon: float) -> None:
    """Against the same iterations on logarithms in float64, at the ends of cosines."""
    scores = cosines(16, 30, torch.Generator().manual_seed(1))
    codes = sinkhorn(scores, 3, epsilon)
    assert torch.isfinite(codes).all()
    torch.testing.assert_close(codes.sum(dim=1), torch.ones(16))
    assert float(codes.max()) <= 1 + 1e-6
    expected = sinkhorn(scores.double(), 3, epsilon)
    torch.testing.assert_close(codes.double(), expected, atol=2e-2, rtol=0)


def test_targets_at_the_least_temperature_are_finite() -> None:
    scores = cosines(8, 12, torch.Generator().manual_seed(2))
    temperature = least(DINOParams, "teacher_temperature")
    for centring in ("mean", "sinkhorn"):
        targets = TeacherTargets(12, 0.9, centring)(scores, temperature)
        assert torch.isfinite(targets).all()
        torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))


def test_no_sample_gives_no_code() -> None:
    assert sinkhorn(torch.zeros(0, 5), 3, 0.05).shape == (0, 5)
