import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from rscl_bench import registry
from rscl_bench.errors import SpecError, TrainingError
from rscl_bench.probes.base import Features, FrozenProbe, Labels, Scores
from rscl_bench.probes.metrics import multilabel_map
from rscl_bench.probes.ml_knn import MLkNNParams, MLkNNProbe
from rscl_bench.probes.neighbours import nearest_rows
from rscl_bench.spec import Spec


def naive_neighbours(
    train: Features, query: Features, k: int, excluded: int | None = None
) -> list[int]:
    distances = []
    for row in range(len(train)):
        if row != excluded:
            total = 0.0
            for a, b in zip(train[row].tolist(), query.tolist(), strict=True):
                total += (a - b) ** 2
            distances.append((total, row))
    return [row for _, row in sorted(distances)[:k]]


def naive_ml_knn(
    train: Features, labels: Labels, test: Features, k: int, s: float, exclude_self: bool = True
) -> list[list[float]]:
    """Zhang & Zhou's pseudocode, label by label and row by row."""
    rows, count = labels.shape
    hoods = [
        naive_neighbours(train, train[row], k, row if exclude_self else None) for row in range(rows)
    ]
    result = [[0.0] * count for _ in range(len(test))]
    for label in range(count):
        prior = (s + sum(int(y) for y in labels[:, label])) / (s * 2 + rows)
        c = [0] * (k + 1)
        c_prime = [0] * (k + 1)
        for row in range(rows):
            delta = sum(int(labels[a, label]) for a in hoods[row])
            if labels[row, label] == 1:
                c[delta] += 1
            else:
                c_prime[delta] += 1
        for t in range(len(test)):
            hood = naive_neighbours(train, test[t], k)
            delta = sum(int(labels[a, label]) for a in hood)
            h1 = prior * (s + c[delta]) / (s * (k + 1) + sum(c))
            h0 = (1 - prior) * (s + c_prime[delta]) / (s * (k + 1) + sum(c_prime))
            result[t][label] = h1 / (h1 + h0)
    return result


def random_problem(
    seed: int, rows: int, tests: int, width: int, labels: int, ties: bool
) -> tuple[Features, Labels, Features]:
    rng = np.random.default_rng(seed)
    shape = (rows + tests, width)
    # Small integers: squared distances are exact and many are equal.
    values = rng.integers(0, 3, shape) if ties else rng.normal(size=shape)
    features = values.astype(np.float32)
    return features[:rows], (rng.random((rows, labels)) < 0.3).astype(np.uint8), features[rows:]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    k=st.integers(1, 6),
    extra=st.integers(1, 25),
    tests=st.integers(1, 6),
    width=st.integers(1, 4),
    labels=st.integers(1, 5),
    s=st.sampled_from([0.1, 1.0, 2.5]),
    ties=st.booleans(),
)
def test_equals_the_papers_pseudocode(
    seed: int, k: int, extra: int, tests: int, width: int, labels: int, s: float, ties: bool
) -> None:
    train, truth, test = random_problem(seed, k + extra, tests, width, labels, ties)
    scores = MLkNNProbe(MLkNNParams(k=k, s=s)).score(train, truth, test)
    np.testing.assert_allclose(scores, naive_ml_knn(train, truth, test, k, s), rtol=1e-12)
    assert (scores >= 0).all()
    assert (scores <= 1).all()


def test_a_row_is_not_its_own_neighbour() -> None:
    train, truth, test = random_problem(0, 40, 10, 3, 4, ties=False)
    scores = MLkNNProbe(MLkNNParams(k=3)).score(train, truth, test)
    leaky = np.array(naive_ml_knn(train, truth, test, 3, 1.0, exclude_self=False))
    assert np.abs(scores - leaky).max() > 0.01


def test_perfect_features_score_one() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random((1300, 3)) < 0.4).astype(np.uint8)
    features = truth.astype(np.float32)  # tiles of one label set coincide
    scores = MLkNNProbe(MLkNNParams()).score(features[:1000], truth[:1000], features[1000:])
    result = multilabel_map(truth[1000:], scores)
    assert result.micro == pytest.approx(1.0)
    assert result.macro == pytest.approx(1.0)


def test_random_features_score_the_prevalence() -> None:
    rng = np.random.default_rng(2)
    truth = (rng.random((4000, 4)) < 0.25).astype(np.uint8)
    features = rng.normal(size=(4000, 8)).astype(np.float32)
    scores = MLkNNProbe(MLkNNParams()).score(features[:2000], truth[:2000], features[2000:])
    result = multilabel_map(truth[2000:], scores)
    assert result.macro == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_ties_go_to_the_lower_row_on_wide_features(offset: float) -> None:
    # As of a collapsed encoder: few distinct wide rows, whose product-based distances are noise.
    rng = np.random.default_rng(3)
    distinct = (rng.normal(size=(4, 96)) + offset).astype(np.float32)
    train = distinct[rng.integers(0, 4, 300)]
    for queries in (None, distinct):
        rows = nearest_rows(train, queries, 10)
        for at, row in enumerate(train if queries is None else distinct):
            excluded = at if queries is None else None
            same = [j for j in np.flatnonzero((train == row).all(axis=1)) if j != excluded]
            assert rows[at].tolist() == same[:10]


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    train, _, test = random_problem(4, 60, 30, 3, 1, ties=True)
    whole = nearest_rows(train, None, 4), nearest_rows(train, test, 4)
    monkeypatch.setattr("rscl_bench.probes.neighbours._BLOCK_VALUES", 1)
    assert np.array_equal(nearest_rows(train, None, 4), whole[0])
    assert np.array_equal(nearest_rows(train, test, 4), whole[1])


def test_is_deterministic_and_leaves_its_inputs_alone() -> None:
    train, truth, test = random_problem(5, 50, 20, 8, 3, ties=False)
    copies: tuple[np.ndarray, ...] = (train.copy(), truth.copy(), test.copy())
    probe = MLkNNProbe(MLkNNParams())
    assert np.array_equal(probe.score(train, truth, test), probe.score(train, truth, test))
    arrays: tuple[np.ndarray, ...] = (train, truth, test)
    for array, copy in zip(arrays, copies, strict=True):
        assert np.array_equal(array, copy)
        assert array.flags.writeable


def test_too_few_rows_are_refused() -> None:
    train, truth, test = random_problem(6, 10, 2, 3, 2, ties=False)
    with pytest.raises(SpecError, match="at least 11 training tiles and has 10"):
        MLkNNProbe(MLkNNParams(k=10)).score(train, truth, test)
    assert MLkNNProbe(MLkNNParams(k=9)).score(train, truth, test).shape == (2, 2)


def test_is_registered() -> None:
    assert registry.load("probes", "ml-knn") is MLkNNProbe
    assert MLkNNProbe.Params().model_dump() == {"k": 10, "s": 1.0}


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


def test_the_public_method_is_sealed() -> None:
    with pytest.raises(TypeError, match="replaces score, which is sealed"):
        type("Open", (FrozenProbe,), {"score": lambda self: None})
    with pytest.raises(TypeError, match="takes its own Params"):
        MLkNNProbe(Spec())


def test_scores_rank_like_an_average_precision_expects() -> None:
    train, truth, test = random_problem(7, 200, 100, 2, 1, ties=False)
    truth[:, 0] = train[:, 0] > 0
    scores = MLkNNProbe(MLkNNParams()).score(train, truth, test)
    assert average_precision_score(test[:, 0] > 0, scores[:, 0]) > 0.95
