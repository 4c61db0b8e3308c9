"""The linear probe against scipy's minimum of the penalised loss."""

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit

from rscl_bench.errors import TrainingError
from rscl_bench.probes.linear import LinearParams, LinearProbe
from rscl_bench.randomness import numpy_generator


def problem(rows: int = 60) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    rng = numpy_generator(0, "linear")
    train, test = (rng.normal(3.0, 5.0, (n, 4)).astype(np.float32) for n in (rows, 20))
    train[:, 3], test[:, 3] = 2.0, 2.0  # a dimension that never varies
    noise = rng.normal(0.0, 5.0, (rows, 3))
    labels = (train[:, :3] + noise > 3.0).astype(np.uint8)
    return train, labels, test


def by_hand(
    train: NDArray[np.float32], present: NDArray[np.uint8], test: NDArray[np.float32], c: float
) -> NDArray[np.float64]:
    """Minimise ½|w|² + c Σ log(1 + exp(−y (w·x + b))) on standardised features."""
    mean, std = train.astype(float).mean(axis=0), train.astype(float).std(axis=0)
    std[std == 0] = 1.0
    x, sign = (train - mean) / std, 2.0 * present - 1

    def loss(weights: NDArray[np.float64]) -> float:
        margin = sign * (x @ weights[:-1] + weights[-1])
        penalty: float = 0.5 * (weights[:-1] ** 2).sum()
        return float(penalty - c * np.log(expit(margin)).sum())

    found = minimize(loss, np.zeros(x.shape[1] + 1), method="BFGS", options={"gtol": 1e-9}).x
    odds: NDArray[np.float64] = (test - mean) / std @ found[:-1] + found[-1]
    return odds


@pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
def test_scores_are_those_of_the_minimum(c: float) -> None:
    train, labels, test = problem()
    scores = LinearProbe(LinearParams(C=c)).score(train, labels, test)
    for label in range(labels.shape[1]):
        expected = by_hand(train, labels[:, label], test, c)
        assert np.abs(expected).max() > 0.01
        np.testing.assert_allclose(scores[:, label], expected, rtol=1e-4, atol=1e-5)


def test_labels_that_never_or_always_occur_get_their_prior() -> None:
    train, labels, test = problem()
    labels[:, 0], labels[:, 1] = 0, 1
    scores = LinearProbe(LinearParams()).score(train, labels, test)
    assert np.allclose(scores[:, 0], np.log(1 / 61))
    assert np.allclose(scores[:, 1], np.log(61 / 1))
    assert np.ptp(scores[:, 2]) > 0.1


def test_no_convergence_is_refused() -> None:
    train, labels, test = problem()
    with pytest.raises(TrainingError, match="not converged after 1 iterations; raise"):
        LinearProbe(LinearParams(iterations=1)).score(train, labels, test)
