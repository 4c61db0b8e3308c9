import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rscl_bench import registry
from rscl_bench.errors import SpecError
from rscl_bench.probes.base import Features, Labels
from rscl_bench.probes.ml_knn import MLkNNParams, MLkNNProbe
from rscl_bench.probes.neighbours import nearest_rows


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
    # Small integers give exact squared distances, many of which are equal.
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


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_ties_go_to_the_lower_row_on_wide_features(offset: float) -> None:
    # A collapsed encoder gives few distinct rows; distances from a matrix product are noise there.
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


def test_too_few_rows_are_refused() -> None:
    train, truth, test = random_problem(6, 10, 2, 3, 2, ties=False)
    with pytest.raises(SpecError, match="at least 11 training tiles and has 10"):
        MLkNNProbe(MLkNNParams(k=10)).score(train, truth, test)
    assert MLkNNProbe(MLkNNParams(k=9)).score(train, truth, test).shape == (2, 2)


def test_is_registered() -> None:
    assert registry.load("probes", "ml-knn") is MLkNNProbe
    assert MLkNNProbe.Params().model_dump() == {"k": 10, "s": 1.0}
