"""Checks of inputs and results, and sealed methods."""

import math

import numpy as np
import pytest

from rscl_bench.errors import TrainingError
from rscl_bench.probes.base import BaseProbe, Features, FrozenProbe, Labels, Scores
from rscl_bench.probes.ml_knn import MLkNNProbe
from rscl_bench.probes.transfer import TransferProbe
from rscl_bench.spec import Spec


class ConstantProbe(FrozenProbe):
    Params = Spec
    result: Scores = np.zeros((2, 1))

    def _score(
        self, train_features: Features, train_labels: Labels, test_features: Features
    ) -> Scores:
        assert not train_features.flags.writeable
        return self.result


def inputs() -> dict[str, np.ndarray]:
    return {
        "train_features": np.zeros((3, 2), np.float32),
        "train_labels": np.ones((3, 1), np.uint8),
        "test_features": np.zeros((2, 2), np.float32),
    }


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("train_features", np.zeros((3, 2)), TypeError, "train features must be float32"),
        ("test_features", np.zeros(2, np.float32), ValueError, "test features must be"),
        ("test_features", np.zeros((0, 2), np.float32), ValueError, "test features must be"),
        ("test_features", np.zeros((2, 3), np.float32), ValueError, "2 wide, test features 3"),
        ("train_labels", np.ones((3, 1)), TypeError, "labels must be uint8"),
        ("train_labels", np.ones((2, 1), np.uint8), ValueError, r"labels must be \[3, labels\]"),
        ("train_labels", np.full((3, 1), 2, np.uint8), ValueError, "0 or 1, got 2"),
        ("train_features", np.full((3, 2), math.nan, np.float32), TrainingError, "not finite"),
        ("test_features", np.full((2, 2), math.inf, np.float32), TrainingError, "not finite"),
    ],
)
def test_wrong_inputs_are_refused(
    name: str, value: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ConstantProbe(Spec()).score(**{**inputs(), name: value})


@pytest.mark.parametrize(
    "result", [np.zeros((1, 1)), np.zeros((2, 1), np.float32), np.full((2, 1), math.nan)]
)
def test_wrong_results_are_refused(result: np.ndarray) -> None:
    probe = ConstantProbe(Spec())
    probe.result = result
    with pytest.raises(ValueError, match="ConstantProbe returned"):
        probe.score(**inputs())


def test_callers_arrays_stay_writeable() -> None:
    arrays = inputs()
    ConstantProbe(Spec()).score(**arrays)
    assert all(array.flags.writeable for array in arrays.values())


@pytest.mark.parametrize(
    ("kind", "method"),
    [(FrozenProbe, "score"), (FrozenProbe, "evaluate"), (TransferProbe, "evaluate")],
)
def test_sealed_methods_cannot_be_replaced(kind: type[BaseProbe], method: str) -> None:
    with pytest.raises(TypeError, match=f"replaces {method}, which is sealed"):
        type("Open", (kind,), {method: lambda self: None})


def test_params_of_another_probe_are_refused() -> None:
    with pytest.raises(TypeError, match="takes its own Params"):
        MLkNNProbe(Spec())
