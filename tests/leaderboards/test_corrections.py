"""Tests corrections for many comparisons against their definitions and published counts."""

import csv
import math

import numpy as np
import pytest
from helpers.paths import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from rscl_bench.leaderboards.corrections import RATE, benjamini_hochberg, holm


def holm_rejects(p: list[float], rate: float) -> set[int]:
    """Step down: the i-th smallest of m values must be at most rate / (m − i + 1)."""
    rejected: set[int] = set()
    for step, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        if p[index] > rate / (len(p) - step):
            break
        rejected.add(index)
    return rejected


def benjamini_hochberg_rejects(p: list[float], rate: float) -> set[int]:
    """Step up: the largest k with p(k) at most k · rate / m, and all smaller values."""
    ordered = sorted(p)
    passed = [k for k, value in enumerate(ordered, 1) if value <= k * rate / len(p)]
    return {i for i, value in enumerate(p) if passed and value <= ordered[max(passed) - 1]}


@settings(max_examples=300)
@given(
    p=st.lists(st.integers(0, 1000), min_size=1, max_size=40),
    rate=st.sampled_from([0.0107, 0.0513, 0.2531]),
)
def test_adjusted_values_reject_what_the_procedures_reject(p: list[int], rate: float) -> None:
    values = [value / 1000 for value in p]
    assert set(np.flatnonzero(holm(values) <= rate)) == holm_rejects(values, rate)
    assert set(np.flatnonzero(benjamini_hochberg(values) <= rate)) == benjamini_hochberg_rejects(
        values, rate
    )


def test_adjusted_values_of_an_example() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert benjamini_hochberg([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.04, 0.04])


def test_published_pairs_do_not_survive_a_correction() -> None:
    """Counts from the p values of the published table, by definition and by the suite."""
    path = ROOT / "leaderboards/scene4-v2/cpu/comparisons.csv"
    with path.open(newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["score"] == "micro"]
    p = [float(line["p"]) for line in lines]
    assert len(p) == math.comb(15, 2)
    assert sum(value <= RATE for value in p) == 48
    assert len(holm_rejects(p, RATE)) == len(benjamini_hochberg_rejects(p, RATE)) == 0
    assert len(benjamini_hochberg_rejects(p, 0.06)) == 18
    assert len(benjamini_hochberg_rejects(p, 0.10)) == 47
    assert sum(float(line["p_bh"]) <= 0.10 for line in lines) == 47
    assert {line["separated"] for line in lines} == {"no"}
    header = path.with_name("leaderboard.md").read_text(encoding="utf-8")
    assert (
        "of 105 pairs, 48 have p ≤ 0.05; 0 remain after Holm's correction and 0 after Benjamini and"
    ) in header
