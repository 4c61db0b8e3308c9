"""Barlow Twins and VICReg against transcriptions of their papers, entry by entry."""

import math
from typing import Any

import pytest
from helpers.joint_embeddings import build, mean, noise, projections, watched
from torch import Tensor, nn


def columns(rows: Tensor) -> list[list[float]]:
    return [column.tolist() for column in rows.detach().double().T]


def barlow_twins(first: Tensor, second: Tensor, weight: float) -> float:
    """Zbontar et al. (2021), Eq. 1 and 2, with dimensions centred over the batch."""
    total = 0.0
    for i, one in enumerate(columns(first)):
        for j, other in enumerate(columns(second)):
            a, b = ([v - mean(values) for v in values] for values in (one, other))
            product = sum(x * y for x, y in zip(a, b, strict=True))
            norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
            correlation = product / norms
            total += (1 - correlation) ** 2 if i == j else weight * correlation**2
    return total


def vicreg(
    first: Tensor, second: Tensor, weights: tuple[float, float, float] = (25.0, 25.0, 1.0)
) -> float:
    """Bardes et al. (2022), Eq. 1 to 6, with the averages of the authors' code.

    The invariance is divided by D too, and the variance is the mean of both views'.
    """
    count, width = first.shape
    distance = float((first.double() - second.double()).square().sum()) / (count * width)
    variance = covariance = 0.0
    for view in (columns(first), columns(second)):
        centred = [[v - mean(values) for v in values] for values in view]
        for i, one in enumerate(centred):
            deviation = math.sqrt(sum(v * v for v in one) / (count - 1) + 1e-4)
            variance += max(0.0, 1 - deviation) / width / 2
            for j, other in enumerate(centred):
                if i != j:
                    product = sum(x * y for x, y in zip(one, other, strict=True))
                    covariance += (product / (count - 1)) ** 2 / width
    return weights[0] * distance + weights[1] * variance + weights[2] * covariance


@pytest.mark.parametrize("weight", [0.005, 0.1])
def test_barlow_twins_is_eq_1(weight: float) -> None:
    first, second = 3 + 2 * noise(9, 6), noise(9, 6, seed=1) - 1
    loss = build("barlow-twins", redundancy=weight).compare([first, second], [])
    assert float(loss) == pytest.approx(barlow_twins(first, second, weight), rel=1e-4)


def test_barlow_twins_of_twins_without_redundancy_is_zero() -> None:
    rows = noise(8, 4)
    orthogonal = (rows - rows.mean(dim=0)).svd().U
    loss = build("barlow-twins").compare([orthogonal * 50, orthogonal * 50], [])
    assert float(loss) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 2.0, 30.0)])
def test_vicreg_is_eq_6(weights: tuple[float, float, float]) -> None:
    first, second = 1 + 0.5 * noise(9, 6), noise(9, 6, seed=1)
    names = ("invariance", "variance", "covariance")
    chosen: dict[str, Any] = dict(zip(names, weights, strict=True))
    objective = build("vicreg", **chosen)
    loss = objective.compare([first, second], [])
    assert float(loss) == pytest.approx(vicreg(first, second, weights), rel=1e-5)


@pytest.mark.parametrize("name", ["barlow-twins", "vicreg"])
def test_over_training(name: str) -> None:
    """Each view passes alone, so that batch normalisation is over one."""
    for step in watched(name):
        first, second = projections(step.before, step.views)
        expected = (
            barlow_twins(first, second, 0.005) if name == "barlow-twins" else vicreg(first, second)
        )
        # lightly's normalisation adds 1e-5 to a variance.
        assert step.loss == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("name", ["barlow-twins", "vicreg"])
def test_heads(name: str) -> None:
    objective = build(name, hidden_dim=7, output_dim=5)
    normed = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in objective.projector] == [*normed * 2, nn.Linear]
    linear = [layer for layer in objective.projector if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [7, 7, 5]
    assert all(layer.bias is None for layer in linear)
    params = objective.Params()
    assert (params.hidden_dim, params.output_dim) == (8192, 8192)


def test_defaults() -> None:
    assert build("barlow-twins").Params().redundancy == 0.005
    params = build("vicreg").Params()
    assert (params.invariance, params.variance, params.covariance) == (25, 25, 1)


def test_distillation_of_cassle() -> None:
    """Barlow Twins its own loss; VICReg the invariance with its weight."""
    predicted = [noise(9, 8, seed=seed) for seed in (0, 1)]
    past = [noise(9, 8, seed=seed) for seed in (2, 3)]
    pairs = list(zip(predicted, past, strict=True))
    expected = mean([barlow_twins(*pair, 0.005) for pair in pairs])
    assert float(build("barlow-twins").distil(predicted, past)) == pytest.approx(expected, rel=1e-4)
    expected = mean([vicreg(*pair, (25.0, 0, 0)) for pair in pairs])
    assert float(build("vicreg").distil(predicted, past)) == pytest.approx(expected, rel=1e-5)
