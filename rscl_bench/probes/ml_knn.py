"""ML-kNN: multi-label k-nearest neighbours on frozen features."""

from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field

from rscl_bench.errors import SpecError
from rscl_bench.probes.base import Features, FrozenProbe, Labels, Scores
from rscl_bench.probes.neighbours import nearest_rows
from rscl_bench.spec import Positive, Spec

Counts = npt.NDArray[np.intp]


class MLkNNParams(Spec):
    """Parameters of ML-kNN.

    Attributes:
        k: Number of neighbours.
        s: Smoothing; 1 is Laplace smoothing.
    """

    k: Positive = 10
    s: Annotated[float, Field(gt=0)] = 1.0


class MLkNNProbe(FrozenProbe):
    """ML-kNN: the posterior of each label, given the number of neighbours that carry the label.

    Zhang & Zhou, "ML-kNN: A lazy learning approach to multi-label learning", Pattern Recognition
    40 (2007), pseudocode of Fig. 1. The score is the paper's ranking vector, the posterior that a
    label is present. Distances are Euclidean, on
    features without normalisation.
    """

    Params = MLkNNParams
    params: MLkNNParams

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        k, s = self.params.k, self.params.s
        rows, labels = train_labels.shape
        if rows < k + 1:
            raise SpecError(
                f"ML-kNN with k = {k} needs at least {k + 1} training tiles and has {rows}; "
                "lower the probe's k or give the probe more tiles."
            )
        present = train_labels.astype(bool)
        # No row is its own neighbour: otherwise the row's label would leak into the likelihoods.
        train_counts = _label_counts(train_labels, nearest_rows(train_features, None, k))
        test_counts = _label_counts(train_labels, nearest_rows(train_features, test_features, k))
        prior = (s + present.sum(axis=0)) / (2 * s + rows)
        column = np.arange(labels)
        with_label = prior * _likelihood(train_counts, present, k, s)[column, test_counts]
        without = (1 - prior) * _likelihood(train_counts, ~present, k, s)[column, test_counts]
        posterior: Scores = with_label / (with_label + without)
        return posterior


def _label_counts(labels: Labels, neighbours: npt.NDArray[np.intp]) -> Counts:
    """Return the number of each row's neighbours ``[Q, k]`` that carry each label, ``[Q, L]``."""
    counts = np.zeros((len(neighbours), labels.shape[1]), dtype=np.intp)
    for nth_neighbour in neighbours.T:  # k small gathers need less memory than one [Q, k, L]
        counts += labels[nth_neighbour]
    return counts


def _likelihood(counts: Counts, chosen: npt.NDArray[np.bool_], k: int, s: float) -> Scores:
    """Return P(j neighbours carry the label) among the chosen training rows, ``[L, k + 1]``.

    Args:
        counts: Number of neighbours that carry each label, ``[N, L]``, 0 to k.
        chosen: Rows with each label (H1), or rows without the label (H0), ``[N, L]``.
        k: Number of neighbours.
        s: Smoothing.
    """
    labels = counts.shape[1]
    cells = np.arange(labels) * (k + 1) + counts
    tally = np.bincount(cells[chosen], minlength=labels * (k + 1)).reshape(labels, k + 1)
    likelihood: Scores = (s + tally) / (s * (k + 1) + tally.sum(axis=1, keepdims=True))
    return likelihood
