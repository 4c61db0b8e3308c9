"""Linear probe: logistic regression on frozen features."""

import warnings
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from rscl_bench.errors import TrainingError
from rscl_bench.probes.base import Features, FrozenProbe, Labels, Scores
from rscl_bench.spec import Positive, Spec

_TOLERANCE = 1e-8  # at scikit-learn's default, scores still change in the fourth digit


class LinearParams(Spec):
    """Parameters of the linear probe.

    Attributes:
        C: Inverse strength of the L2 penalty, as in scikit-learn.
        iterations: Maximum number of L-BFGS iterations.
    """

    C: Annotated[float, Field(gt=0)] = 1.0
    iterations: Positive = 1000


class LinearProbe(FrozenProbe):
    """One logistic regression per label, on standardised features.

    The convex form of the linear probe, as in Radford et al. (2021), "Learning Transferable Visual
    Models From Natural Language Supervision", Appendix A.3: without augmentation, and solved by
    L-BFGS, so that no learning rate has to be tuned. The standardisation replaces the batch
    normalisation before the classifier of He et al. (2022), Appendix A.1. The score is the log-odds
    that a label is present.
    """

    Params = LinearParams
    params: LinearParams

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        scaler = StandardScaler().fit(train_features.astype(np.float64))
        train = scaler.transform(train_features.astype(np.float64))
        test = scaler.transform(test_features.astype(np.float64))
        return np.stack([self._log_odds(train, label, test) for label in train_labels.T], axis=1)

    def _log_odds(self, train: Scores, present: Labels, test: Scores) -> NDArray[np.float64]:
        if present.min() == present.max():  # one class only: the prior with Laplace smoothing
            prior = np.log(1 + present.sum(dtype=int)) - np.log(1 + (1 - present).sum(dtype=int))
            return np.full(len(test), prior)
        model = LogisticRegression(C=self.params.C, tol=_TOLERANCE, max_iter=self.params.iterations)
        with warnings.catch_warnings():
            warnings.simplefilter("error", ConvergenceWarning)
            try:
                model.fit(train, present)
            except ConvergenceWarning as warning:
                raise TrainingError(
                    f"The linear probe has not converged after {self.params.iterations} "
                    "iterations; raise the probe's 'iterations' or lower the probe's 'C'."
                ) from warning
        odds: NDArray[np.float64] = model.decision_function(test)
        return odds
