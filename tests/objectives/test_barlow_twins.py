"""Barlow Twins against a transcription of its paper, entry by entry."""

import math

import pytest
from helpers.joint_embeddings import build, columns, mean, noise, projections, watched
from torch import Tensor, nn


def barlow_twins(first: Tensor, second: Tensor, weight: float) -> float:
    """Return Zbontar et al. (2021), Eq. 1 and 2, with dimensions centred over the batch."""
    total = 0.0
    for i, one in enumerate(columns(first)):
        for j, other in enumerate(columns(second)):
            a, b = ([v - mean(values) for v in values] for values in (one, other))
            product = sum(x * y for x, y in zip(a, b, strict=True))
            norms = math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(y * y for y in b))
            correlation = product / norms
            total += (1 - correlation) ** 2 if i == j else weight * correlation**2
    return total


@pytest.mark.parametrize("weight", [0.005, 0.1])
def test_barlow_twins_is_eq_1(weight: float) -> None:
    first, second = 3 + 2 * noise(9, 6), noise(9, 6, seed=1) - 1
    loss = build("barlow-twins", redundancy=weight).compare([first, second], [])
    assert float(loss) == pytest.approx(barlow_twins(first, second, weight), rel=1e-4)


def test_barlow_twins_loss_of_decorrelated_twins_is_zero() -> None:
    rows = noise(8, 4)
    orthogonal = (rows - rows.mean(dim=0)).svd().U
    loss = build("barlow-twins").compare([orthogonal * 50, orthogonal * 50], [])
    assert float(loss) == pytest.approx(0, abs=1e-5)


def test_loss_over_training() -> None:
    """Each view is a batch of its own for batch normalisation."""
    for step in watched("barlow-twins"):
        first, second = projections(step.before, step.views)
        expected = barlow_twins(first, second, 0.005)
        # lightly's normalisation adds 1e-5 to a variance.
        assert step.loss == pytest.approx(expected, rel=5e-3)


def test_projector_and_defaults() -> None:
    objective = build("barlow-twins", hidden_dim=7, output_dim=5)
    normed = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in objective.projector] == [*normed * 2, nn.Linear]
    linear = [layer for layer in objective.projector if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [7, 7, 5]
    assert all(layer.bias is None for layer in linear)
    params = objective.Params()
    assert (params.hidden_dim, params.output_dim) == (8192, 8192)
    assert params.redundancy == 0.005


def test_distillation_is_the_loss() -> None:
    predicted = [noise(9, 8, seed=seed) for seed in (0, 1)]
    past = [noise(9, 8, seed=seed) for seed in (2, 3)]
    expected = mean([barlow_twins(*pair, 0.005) for pair in zip(predicted, past, strict=True)])
    assert float(build("barlow-twins").distil(predicted, past)) == pytest.approx(expected, rel=1e-4)
