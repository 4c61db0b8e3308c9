"""What every probe is: a sealed public method over one private hook."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from rscl_bench.errors import TrainingError
from rscl_bench.spec import Spec

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]


class BaseProbe(ABC):
    """What all probes share: parameters of their own, and a public method that none replaces.

    Attributes:
        Params: The probe's parameters, a frozen spec.
        params: Their values.
    """

    Params: ClassVar[type[Spec]]

    def __init__(self, params: Spec) -> None:
        """Keep the parameters.

        Raises:
            TypeError: If they are not this probe's `Params`.
        """
        if not isinstance(params, self.Params):
            raise TypeError(
                f"{type(self).__name__} takes its own Params, got {type(params).__name__}"
            )
        self.params = params

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a subclass that replaces the checked public method."""
        super().__init_subclass__(**kwargs)
        if "score" in cls.__dict__ and any(hasattr(base, "score") for base in cls.__bases__):
            raise TypeError(
                f"{cls.__name__} replaces score, which is sealed; write its hook instead"
            )


class Probe(BaseProbe):
    """Fits on labelled training features and scores test features.

    A probe gets arrays, never the encoder, so it cannot change it. The arrays that reach the hook
    are read-only. Subclasses set `Params` and write `_score`; `score` is sealed, so that every
    probe, also another package's, is checked alike.
    """

    @final
    def score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        """Return one score per test row and label; higher means more likely present.

        Args:
            train_features: ``[N, D]`` float32.
            train_labels: ``[N, L]`` uint8, 0 or 1.
            test_features: ``[M, D]`` float32.

        Returns:
            ``[M, L]`` float64, finite. Equal inputs give equal scores.

        Raises:
            TypeError: If a dtype is not the one above.
            ValueError: If shapes do not fit, are empty, or a label is not 0 or 1.
            TrainingError: If a feature is not finite: the encoder has diverged.
        """
        _check_features(train_features, "train")
        _check_features(test_features, "test")
        if train_features.shape[1] != test_features.shape[1]:
            raise ValueError(
                f"train features are {train_features.shape[1]} wide, "
                f"test features {test_features.shape[1]}"
            )
        _check_labels(train_labels, len(train_features))
        scores = self._score(
            _read_only(train_features), _read_only(train_labels), _read_only(test_features)
        )
        expected = (len(test_features), train_labels.shape[1])
        if scores.shape != expected or scores.dtype != np.float64:
            raise ValueError(
                f"{type(self).__name__} returned {scores.dtype} {list(scores.shape)}, "
                f"expected float64 {list(expected)}"
            )
        if not np.isfinite(scores).all():
            raise ValueError(f"{type(self).__name__} returned a score that is not finite")
        return scores

    @abstractmethod
    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        """Return the scores; the inputs are checked and read-only."""


def _check_features(features: Features, role: str) -> None:
    if features.dtype != np.float32:
        raise TypeError(f"{role} features must be float32, got {features.dtype}")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"{role} features must be [rows, width], got {list(features.shape)}")
    if not np.isfinite(features).all():
        raise TrainingError(
            f"The encoder gives {role} features that are not finite, so it cannot be probed; "
            "lower the learning rate or use fp32."
        )


def _check_labels(labels: Labels, rows: int) -> None:
    if labels.dtype != np.uint8:
        raise TypeError(f"labels must be uint8, got {labels.dtype}")
    if labels.ndim != 2 or labels.shape[0] != rows or labels.shape[1] == 0:
        raise ValueError(f"labels must be [{rows}, labels], got {list(labels.shape)}")
    if labels.max() > 1:
        raise ValueError(f"labels must be 0 or 1, got {labels.max()}")


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
