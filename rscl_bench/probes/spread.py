"""How far features are from collapse."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Spread(NamedTuple):
    """Two signs of collapse.

    Attributes:
        std: Standard deviation of a dimension of L2-normalised features, averaged over dimensions,
            times √D: 1 where they fill the sphere evenly, 0 where all are one (Chen & He 2021,
            "Exploring Simple Siamese Representation Learning", Section 4.1, who leave √D out).
        effective_rank: exp of the entropy of the normalised singular values of the centred
            features, from 1 to D (Roy & Vetterli 2007, "The effective rank", Eq. 1 to 3); 1 where
            all are one.
    """

    std: float
    effective_rank: float


def spread(features: NDArray[np.floating]) -> Spread:
    """Return the spread of features.

    Args:
        features: ``[M, D]``, finite.
    """
    values = features.astype(np.float64)
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    unit = np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
    std = float(unit.std(axis=0).mean() * np.sqrt(values.shape[1]))
    singular = np.linalg.svd(values - values.mean(axis=0), compute_uv=False)
    # What rounding leaves of a direction in which nothing differs.
    singular = singular[singular > 1e-6 * max(np.abs(values).max(), 1e-30) * np.sqrt(values.size)]
    if not len(singular):
        return Spread(std, 1.0)
    shares = singular / singular.sum()
    return Spread(std, float(np.exp(-(shares * np.log(shares)).sum())))
