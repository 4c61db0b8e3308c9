"""The probe skeleton."""

from typing import Annotated

import numpy as np
from pydantic import Field
from rscl_bench.probes.base import Features, FrozenProbe, Labels, Scores
from rscl_bench.spec import Spec


class Parameters(Spec):
    """What a scenario may set, as parameters of a probe.

    Attributes:
        penalty: Weight of the squared coefficients, relative to the number of images.
    """

    penalty: Annotated[float, Field(gt=0)] = 1e-3


class Skeleton(FrozenProbe):
    """Ridge regression of every label on the features; its prediction is the score."""

    Params = Parameters
    params: Parameters

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        centre, prevalence = train_features.mean(axis=0), train_labels.mean(axis=0)
        features = (train_features - centre).astype(np.float64)
        penalty = self.params.penalty * len(features) * np.eye(features.shape[1])
        products = features.T @ (train_labels - prevalence)
        weights = np.linalg.solve(features.T @ features + penalty, products)
        scores: Scores = (test_features - centre) @ weights + prevalence
        return scores
