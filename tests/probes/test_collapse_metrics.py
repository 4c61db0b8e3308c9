"""The indicators of collapse on features whose spread is known."""

import numpy as np
import pytest

from rscl_bench.probes.collapse_metrics import collapse_metrics


def test_even_on_the_sphere() -> None:
    features = np.random.default_rng(0).standard_normal((20_000, 16))
    assert collapse_metrics(features).std == pytest.approx(1.0, abs=0.01)
    assert collapse_metrics(features).effective_rank == pytest.approx(16, abs=0.05)


def test_one_point() -> None:
    features = np.repeat(np.random.default_rng(0).standard_normal((1, 8)), 50, axis=0)
    assert collapse_metrics(features.astype(np.float32)).std == pytest.approx(0, abs=1e-6)
    assert collapse_metrics(features.astype(np.float32)).effective_rank == 1


def test_a_line_has_rank_one() -> None:
    steps = np.linspace(-1, 1, 40)[:, None]
    assert collapse_metrics(3 + steps * np.arange(1, 6)).effective_rank == pytest.approx(1)


def test_rank_by_hand() -> None:
    """Singular values 3 and 1: shares 3/4 and 1/4."""
    corners = np.array([[3.0, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0]])
    entropy = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    assert collapse_metrics(corners).effective_rank == pytest.approx(np.exp(entropy))


def test_std_has_no_scale() -> None:
    features = np.random.default_rng(1).standard_normal((100, 6))
    lengths = np.random.default_rng(2).uniform(0.1, 50, (100, 1))
    assert collapse_metrics(features * lengths).std == pytest.approx(collapse_metrics(features).std)
