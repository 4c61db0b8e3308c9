"""Tests continual metrics against values by hand and a naive loop."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rscl_bench.results.continual import continual_metrics

DOMAIN = ("final_average", "average_incremental", "backward_transfer", "forgetting")


def test_metrics_equal_values_computed_by_hand() -> None:
    scores = [
        {"a": 0.8, "b": 0.3, "c": 0.2, "u": 0.5},
        {"a": 0.9, "b": 0.7, "c": 0.4, "u": 0.6},
        {"a": 0.6, "b": 0.5, "c": 0.9, "u": 0.4},
    ]
    baseline = {"a": 0.1, "b": 0.2, "c": 0.3, "u": 0.45}
    metrics = continual_metrics(scores, {"a": 0, "b": 1, "c": 2, "u": None}, baseline)
    assert metrics.final_average == pytest.approx((0.6 + 0.5 + 0.9) / 3)
    assert metrics.average_incremental == pytest.approx((0.8 + 1.6 / 2 + 2.0 / 3) / 3)
    assert metrics.backward_transfer == pytest.approx((-0.2 - 0.2) / 2)
    assert metrics.forgetting == pytest.approx((0.3 + 0.2) / 2)
    assert metrics.forward_transfer == pytest.approx((0.1 + 0.1) / 2)
    outside = metrics.outside["u"]
    assert outside.final == 0.4
    assert outside.mean_over_tasks == pytest.approx(0.5)
    assert outside.gain_over_random == pytest.approx(-0.05)
    assert list(metrics.outside) == ["u"]


def naive(scores: list[list[float]], baseline: list[float]) -> dict[str, float | None]:
    """Return the metrics for one probe per task, with indices from 1 as in the papers."""
    last = len(scores)

    def r(t: int, j: int) -> float:
        return scores[t - 1][j - 1]

    final = incremental = backward = forgetting = forward = 0.0
    for j in range(1, last + 1):
        final += r(last, j) / last
    for t in range(1, last + 1):
        seen = 0.0
        for j in range(1, t + 1):
            seen += r(t, j) / t
        incremental += seen / last
    for j in range(1, last):
        backward += (r(last, j) - r(j, j)) / (last - 1)
        best = r(j, j)
        for row in range(j, last):
            best = max(best, r(row, j))
        forgetting += (best - r(last, j)) / (last - 1)
    for j in range(2, last + 1):
        forward += (r(j - 1, j) - baseline[j - 1]) / (last - 1)
    single = last == 1
    return {
        "final_average": final,
        "average_incremental": incremental,
        "backward_transfer": None if single else backward,
        "forgetting": None if single else forgetting,
        "forward_transfer": None if single else forward,
    }


@settings(max_examples=100, deadline=None)
@given(data=st.data(), tasks=st.integers(1, 5))
def test_metrics_equal_a_naive_loop(data: Any, tasks: int) -> None:
    row = st.lists(st.floats(0, 1), min_size=tasks, max_size=tasks)
    scores = data.draw(st.lists(row, min_size=tasks, max_size=tasks))
    baseline = data.draw(row)
    names = [f"p{j}" for j in range(tasks)]
    metrics = continual_metrics(
        [dict(zip(names, values, strict=True)) for values in scores],
        {name: j for j, name in enumerate(names)},
        dict(zip(names, baseline, strict=True)),
    )
    for name, value in naive(scores, baseline).items():
        if value is None:
            assert getattr(metrics, name) is None
        else:
            assert getattr(metrics, name) == pytest.approx(value, abs=1e-12)


def test_single_task_leaves_transfer_and_forgetting_undefined() -> None:
    metrics = continual_metrics([{"a": 0.0}], {"a": 0}, {"a": 0.0})
    assert metrics.final_average == 0.0
    assert metrics.average_incremental == 0.0
    assert metrics.backward_transfer is None
    assert metrics.forgetting is None
    assert metrics.forward_transfer is None


def test_scenario_with_only_an_outside_probe_has_no_domain_metrics() -> None:
    metrics = continual_metrics([{"u": 0.2}, {"u": 0.3}], {"u": None}, {"u": 0.1})
    assert all(getattr(metrics, name) is None for name in (*DOMAIN, "forward_transfer"))
    assert metrics.outside["u"].gain_over_random == pytest.approx(0.2)


def test_undefined_score_leaves_the_metrics_that_need_it_undefined() -> None:
    task_of = {"a": 0, "b": 1, "u": None}
    scores: list[dict[str, float | None]] = [
        {"a": 0.5, "b": None, "u": None},
        {"a": 0.4, "b": 0.6, "u": 0.7},
    ]
    metrics = continual_metrics(scores, task_of, {"a": 0.1, "b": 0.1, "u": None})
    assert metrics.final_average == pytest.approx(0.5)
    assert metrics.backward_transfer == pytest.approx(-0.1)
    assert metrics.forward_transfer is None
    assert metrics.outside["u"].final == 0.7
    assert metrics.outside["u"].mean_over_tasks is None
    assert metrics.outside["u"].gain_over_random is None


def test_tasks_without_a_probe_are_left_out() -> None:
    scores = [{"b": 0.1}, {"b": 0.6}, {"b": 0.5}]
    metrics = continual_metrics(scores, {"b": 1}, {"b": 0.05})
    assert metrics.average_incremental == pytest.approx((0.6 + 0.5) / 2)
    assert metrics.backward_transfer == pytest.approx(-0.1)
    assert metrics.forward_transfer == pytest.approx(0.05)


def test_no_scores_and_unknown_task_index_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one task"):
        continual_metrics([], {}, {})
    with pytest.raises(ValueError, match="do not fit 1 rows"):
        continual_metrics([{"a": 0.1}], {"a": 1}, {"a": 0.1})
