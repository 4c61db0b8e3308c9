"""VICReg against a transcription of its paper, entry by entry."""

import math
from typing import Any

import pytest
from helpers.joint_embeddings import build, columns, mean, noise, projections, watched
from torch import Tensor, nn


def vicreg(
    first: Tensor, second: Tensor, weights: tuple[float, float, float] = (25.0, 25.0, 1.0)
) -> float:
    """Return Bardes et al. (2022), Eq. 1 to 6, with the averages of the authors' code.

    The invariance is also divided by D; the variance term is the mean over both views.
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


@pytest.mark.parametrize("weights", [(25.0, 25.0, 1.0), (1.0, 2.0, 30.0)])
def test_vicreg_is_eq_6(weights: tuple[float, float, float]) -> None:
    first, second = 1 + 0.5 * noise(9, 6), noise(9, 6, seed=1)
    names = ("invariance", "variance", "covariance")
    chosen: dict[str, Any] = dict(zip(names, weights, strict=True))
    objective = build("vicreg", **chosen)
    loss = objective.compare([first, second], [])
    assert float(loss) == pytest.approx(vicreg(first, second, weights), rel=1e-5)


def test_loss_over_training() -> None:
    """Each view is a batch of its own for batch normalisation."""
    for step in watched("vicreg"):
        first, second = projections(step.before, step.views)
        expected = vicreg(first, second)
        # lightly's normalisation adds 1e-5 to a variance.
        assert step.loss == pytest.approx(expected, rel=5e-3)


def test_projector_and_defaults() -> None:
    objective = build("vicreg", hidden_dim=7, output_dim=5)
    normed = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in objective.projector] == [*normed * 2, nn.Linear]
    linear = [layer for layer in objective.projector if isinstance(layer, nn.Linear)]
    assert [layer.out_features for layer in linear] == [7, 7, 5]
    assert all(layer.bias is None for layer in linear)
    params = objective.Params()
    assert (params.hidden_dim, params.output_dim) == (8192, 8192)
    assert (params.invariance, params.variance, params.covariance) == (25, 25, 1)


def test_distillation_is_the_weighted_invariance() -> None:
    predicted = [noise(9, 8, seed=seed) for seed in (0, 1)]
    past = [noise(9, 8, seed=seed) for seed in (2, 3)]
    pairs = zip(predicted, past, strict=True)
    expected = mean([vicreg(*pair, (25.0, 0, 0)) for pair in pairs])
    assert float(build("vicreg").distil(predicted, past)) == pytest.approx(expected, rel=1e-5)
