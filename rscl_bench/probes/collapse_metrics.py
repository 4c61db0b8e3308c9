"""Metrics of how far features are from collapse."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class CollapseMetrics(NamedTuple):
    """Two metrics that fall when features collapse.

    Attributes:
        std: Standard deviation of the dimensions of L2-normalised features, averaged over the D
            dimensions, times √D. 1 for features that fill the sphere evenly, 0 for equal features.
            Chen & He (2021), "Exploring Simple Siamese Representation Learning", Section 4.1,
            without the factor √D.
        effective_rank: exp of the entropy of the normalised singular values of the centred
            features, from 1 to D; 1 for equal features. Roy & Vetterli (2007), "The effective
            rank", Eq. 1 to 3.
    """

    std: float
    effective_rank: float


def collapse_metrics(features: NDArray[np.floating]) -> CollapseMetrics:
    """Return the collapse metrics of features.

    Args:
        features: ``[M, D]``, finite.
    """
    values = features.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    unit = np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
    std = float(unit.std(axis=0).mean() * np.sqrt(values.shape[1]))
    singular = np.linalg.svd(values - values.mean(axis=0), compute_uv=False)
    # Singular values at the level of rounding belong to directions without variation.
    singular = singular[singular > 1e-6 * max(np.abs(values).max(), 1e-30) * np.sqrt(values.size)]
    if not len(singular):
        return CollapseMetrics(std, 1.0)
    shares = singular / singular.sum()
    return CollapseMetrics(std, float(np.exp(-(shares * np.log(shares)).sum())))
