"""The base class of all probes, and the probes that are fitted on features of a frozen encoder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
import numpy.typing as npt

from rscl_bench.errors import TrainingError
from rscl_bench.probes.pixel_statistics import pixel_statistics
from rscl_bench.spec import Spec

if TYPE_CHECKING:  # frozen probes are fitted without torch
    from rscl_bench.probes.encoding import EvalContext, FrozenEncoder, TileSubset

Features = npt.NDArray[np.float32]
Labels = npt.NDArray[np.uint8]
Scores = npt.NDArray[np.float64]


class BaseProbe(ABC):
    """An evaluation of an encoder on labelled tiles.

    A probe is fitted on the training tiles and scores the tiles of all other roles. A probe never
    changes the encoder. Equal inputs give equal scores, to the last bit. A method that is marked
    ``@final`` is sealed: a subclass that replaces the method is refused.

    Attributes:
        Params: The spec of the probe's parameters.
        params: The values of these parameters.
    """

    Params: ClassVar[type[Spec]]

    def __init__(self, params: Spec) -> None:
        """Keep the parameters.

        Raises:
            TypeError: If the parameters are not an instance of this probe's `Params`.
        """
        if not isinstance(params, self.Params):
            raise TypeError(
                f"{type(self).__name__} takes its own Params, got {type(params).__name__}"
            )
        self.params = params

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse a subclass that replaces a sealed method."""
        super().__init_subclass__(**kwargs)
        for name in vars(cls):
            if any(
                getattr(getattr(base, name, None), "__final__", False) for base in cls.__bases__
            ):
                raise TypeError(
                    f"{cls.__name__} replaces {name}, which is sealed; write the probe's hook "
                    "instead"
                )

    @abstractmethod
    def evaluate(
        self,
        encoder: "FrozenEncoder",
        tiles: Mapping[str, "TileSubset"],
        train_labels: Labels,
        context: "EvalContext",
    ) -> dict[str, Scores]:
        """Fit the probe on the training tiles, and score the tiles of every other role.

        Args:
            encoder: The encoder; the probe leaves the encoder unchanged.
            tiles: Tiles by role: ``train``, and the roles to score, such as ``val`` and ``test``.
            train_labels: Labels of the N training tiles, ``[N, L]`` uint8, 0 or 1.
            context: How the tiles reach the encoder.

        Returns:
            One score per tile and label, for every role but ``train``: ``[M, L]`` float64, finite.
            A higher score means that the label is more likely present.

        Raises:
            SpecError: If the probe cannot be fitted on this encoder or on this number of tiles.
            TrainingError: If a feature, loss or score is not finite.
        """

    def evaluate_pixel_statistics(
        self, tiles: Mapping[str, "TileSubset"], train_labels: Labels
    ) -> dict[str, Scores] | None:
        """Score the pixel statistics of tiles in place of an encoder's features.

        Args:
            tiles: As in `evaluate`.
            train_labels: As in `evaluate`.

        Returns:
            Scores as in `evaluate`; None for a probe that needs an encoder.
        """
        return None


class FrozenProbe(BaseProbe):
    """A probe that is fitted on features of the frozen encoder.

    Subclasses set `Params` and write the hook `_score`. The hook gets checked, read-only arrays and
    never sees the encoder.
    """

    @final
    def evaluate(
        self,
        encoder: "FrozenEncoder",
        tiles: Mapping[str, "TileSubset"],
        train_labels: Labels,
        context: "EvalContext",
    ) -> dict[str, Scores]:
        """Fit the probe on features of the training tiles; see `BaseProbe.evaluate`."""
        features = {role: encoder.features(subset, context) for role, subset in tiles.items()}
        return self._scores_by_role(features, train_labels)

    @final
    def evaluate_pixel_statistics(
        self, tiles: Mapping[str, "TileSubset"], train_labels: Labels
    ) -> dict[str, Scores]:
        """Fit the probe on pixel statistics; see `BaseProbe.evaluate_pixel_statistics`."""
        statistics = {
            role: pixel_statistics(subset.store.tiles[subset.indices])
            for role, subset in tiles.items()
        }
        return self._scores_by_role(statistics, train_labels)

    def _scores_by_role(
        self, features: Mapping[str, Features], train_labels: Labels
    ) -> dict[str, Scores]:
        return {
            role: self.score(features["train"], train_labels, scored)
            for role, scored in features.items()
            if role != "train"
        }

    @final
    def score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        """Fit the probe on training features, and score test features.

        Args:
            train_features: ``[N, D]`` float32.
            train_labels: ``[N, L]`` uint8, 0 or 1.
            test_features: ``[M, D]`` float32.

        Returns:
            One score per test row and label, ``[M, L]`` float64, finite. A higher score means that
            the label is more likely present. Equal inputs give equal scores.

        Raises:
            TypeError: If an array has another dtype.
            ValueError: If the shapes do not fit, an array is empty, or a label is not 0 or 1.
            TrainingError: If a feature is not finite, because the encoder has diverged.
        """
        _check_features(train_features, "train")
        _check_features(test_features, "test")
        if train_features.shape[1] != test_features.shape[1]:
            raise ValueError(
                f"train features are {train_features.shape[1]} wide, "
                f"test features {test_features.shape[1]}"
            )
        check_labels(train_labels, len(train_features))
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
        """Return the scores; `score` describes the arrays, which are checked and read-only."""


def check_labels(labels: Labels, rows: int) -> None:
    """Check multi-hot labels.

    Args:
        labels: ``[rows, L]`` uint8, 0 or 1.
        rows: Number of tiles.

    Raises:
        TypeError: If the labels are not uint8.
        ValueError: If the shape is another, or a label is not 0 or 1.
    """
    if labels.dtype != np.uint8:
        raise TypeError(f"labels must be uint8, got {labels.dtype}")
    if labels.ndim != 2 or labels.shape[0] != rows or labels.shape[1] == 0:
        raise ValueError(f"labels must be [{rows}, labels], got {list(labels.shape)}")
    if labels.max() > 1:
        raise ValueError(f"labels must be 0 or 1, got {labels.max()}")


def _check_features(features: Features, role: str) -> None:
    if features.dtype != np.float32:
        raise TypeError(f"{role} features must be float32, got {features.dtype}")
    if features.ndim != 2 or 0 in features.shape:
        raise ValueError(f"{role} features must be [rows, width], got {list(features.shape)}")
    if not np.isfinite(features).all():
        raise TrainingError(
            f"The encoder gives {role} features that are not finite, so the encoder cannot be "
            "probed; lower the learning rate or use fp32."
        )


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    view = array.view()
    view.flags.writeable = False
    return view
