"""Tests intervals over seeds and over images against textbook formulas, scipy and scikit-learn."""

import math
from statistics import NormalDist, mean, stdev

import numpy as np
import pytest
from helpers.image_scores import labels_of, scored
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import average_precision_score

from rscl_bench.leaderboards import statistics
from rscl_bench.leaderboards.statistics import Interval, bootstrap_interval, t_interval
from rscl_bench.probes.metrics import multilabel_map, resampled_maps


def test_interval_over_seeds_equals_the_textbook_formula() -> None:
    values = [0.71, 0.74, 0.69]
    test = t_interval(values)
    half = 4.302653 * stdev(values) / math.sqrt(3)  # 97.5 % quantile of t, 2 degrees of freedom
    assert test.mean == pytest.approx(mean(values))
    assert test.interval == pytest.approx((mean(values) - half, mean(values) + half), abs=1e-7)
    half = 12.706205 * stdev(values[:2]) / math.sqrt(2)
    low, high = t_interval(values[:2]).interval
    assert (high - low) / 2 == pytest.approx(half, abs=1e-6)


def test_t_interval_of_differences_equals_the_paired_t_test() -> None:
    left, right = np.array([0.71, 0.74, 0.69, 0.70]), np.array([0.70, 0.71, 0.69, 0.66])
    ours = t_interval((left - right).tolist())
    theirs = stats.ttest_rel(left, right)
    assert ours.p == pytest.approx(theirs.pvalue)
    assert ours.interval == pytest.approx(theirs.confidence_interval(0.95))


@pytest.mark.parametrize("difference", [0.0, 0.25, -0.1])
def test_equal_values_give_an_interval_without_width(difference: float) -> None:
    test = t_interval([difference] * 3)
    assert test.interval == pytest.approx((difference, difference))
    assert test.p == (None if difference == 0 else pytest.approx(0, abs=1e-12))


@settings(max_examples=80)
@given(
    data=st.data(),
    shape=st.tuples(st.integers(1, 10), st.integers(1, 4)),
    grid=st.sampled_from([2, 5, 1000]),
)
def test_resampled_maps_equal_maps_of_repeated_samples(
    data: st.DataObject, shape: tuple[int, int], grid: int
) -> None:
    labels = data.draw(hnp.arrays(np.uint8, shape, elements=st.integers(0, 1)))
    scores = data.draw(hnp.arrays(np.int64, shape, elements=st.integers(0, grid))) / grid
    counts = data.draw(hnp.arrays(np.int64, (3, shape[0]), elements=st.integers(0, 3)))
    maps = resampled_maps(labels, scores, counts)
    assert maps.shape == (2, 3)
    for column, drawn in enumerate(counts):
        repeated = np.repeat(np.arange(shape[0]), drawn)
        expected = multilabel_map(labels[repeated], scores[repeated])
        for row, value in enumerate((expected.micro, expected.macro)):
            assert maps[row, column] == pytest.approx(
                np.nan if value is None else value, nan_ok=True
            )


def test_interval_over_images_equals_scipy_with_scikit_learn_scores(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statistics, "RESAMPLES", 150)
    labels, runs = labels_of(), [scored(seed, 1.0) for seed in range(2)]
    ((micro, macro),) = bootstrap_interval(labels, runs, np.array([[0.5, 0.5]]))
    for ours, average in ((micro, "micro"), (macro, "macro")):

        def mean_over_runs(images: NDArray[np.int64], average: str = average) -> float:
            drawn = [(labels[images], run[images]) for run in runs]
            return mean(float(average_precision_score(*d, average=average)) for d in drawn)

        theirs = stats.bootstrap(
            (np.arange(len(labels)),),
            mean_over_runs,
            n_resamples=150,
            vectorized=False,
            method="percentile",
            rng=np.random.default_rng(0),
        ).confidence_interval
        assert ours == pytest.approx(tuple(theirs), abs=1e-6)


def test_interval_over_images_equals_the_binomial_interval() -> None:
    """With one score for all images, average precision is the share of positives: binomial."""
    labels = np.zeros((400, 1), dtype=np.uint8)
    labels[:160] = 1
    ((micro, _),) = bootstrap_interval(labels, [np.zeros((400, 1))], np.ones((1, 1)))
    half = NormalDist().inv_cdf(0.975) * math.sqrt(0.4 * 0.6 / 400)
    assert micro == pytest.approx((0.4 - half, 0.4 + half), abs=0.006)


def test_paired_interval_resamples_equal_images_of_both_runs() -> None:
    """Two runs with nearly the same scores differ by far less than each of them spreads."""
    labels, one = labels_of(), scored(0, 1.0)
    two = one + 0.01 * scored(5, 0.0)
    weights = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0], [0.5, 0.5]])
    intervals = [micro for micro, _ in bootstrap_interval(labels, [one, two], weights) if micro]
    widths = [micro.high - micro.low for micro in intervals]
    assert widths[2] < widths[0] / 5
    assert widths[3] == pytest.approx(widths[0], rel=0.1)
    order = np.random.default_rng(1).permutation(len(labels))
    elsewhere = bootstrap_interval(labels, [one, two[order]], weights)
    assert elsewhere[2] != bootstrap_interval(labels, [one, two], weights)[2]


def test_resamples_do_not_depend_on_the_other_rows() -> None:
    labels, one, two = labels_of(), scored(0, 1.0), scored(1, 1.0)
    alone = bootstrap_interval(labels, [one], np.ones((1, 1)))
    together = bootstrap_interval(labels, [two, one], np.array([[0.0, 1.0], [1.0, 0.0]]))
    assert together[0] == alone[0]
    ((zero, _),) = bootstrap_interval(labels, [one, one], np.array([[1.0, -1.0]]))
    assert zero == Interval(0.0, 0.0)


def test_resample_without_a_positive_makes_the_interval_undefined() -> None:
    labels = np.zeros((20, 2), dtype=np.uint8)
    scores = np.random.default_rng(0).random((20, 2))
    assert bootstrap_interval(labels, [scores], np.ones((1, 1))) == [(None, None)]
    labels[3, 1] = 1  # about a third of the resamples have no positive
    assert bootstrap_interval(labels, [scores], np.ones((1, 1))) == [(None, None)]
    assert bootstrap_interval(labels[:1], [scores[:1]], np.ones((1, 1))) == [(None, None)]


def test_macro_map_of_a_resample_is_over_the_labels_with_a_positive_in_it() -> None:
    labels = np.ones((30, 2), dtype=np.uint8)
    labels[1:, 1] = 0
    scores = np.zeros((30, 2))
    scores[0, 1] = 1.0  # both labels are ranked perfectly, also where the second is not drawn
    ((_, macro),) = bootstrap_interval(labels, [scores], np.ones((1, 1)))
    assert macro == Interval(1.0, 1.0)
