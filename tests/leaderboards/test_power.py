"""Power: the separable difference against simulations, and the table on records."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from helpers.cli import call, refused
from helpers.paths import ROOT
from scipy import stats

from rscl_bench import api
from rscl_bench.leaderboards.power import POWER, smallest_difference

RECORDS = ROOT / "leaderboards" / "records" / "scene4"


@pytest.mark.parametrize("rate", [0.05, 0.05 / 105])
@pytest.mark.parametrize("seeds", [3, 5, 12])
def test_the_difference_is_found_as_often_as_stated(seeds: int, rate: float) -> None:
    difference = smallest_difference(1.5, seeds, rate)
    rng = np.random.default_rng(0)
    drawn = rng.normal(difference, 1.5, (20_000, seeds))
    found = np.mean(stats.ttest_1samp(drawn, 0.0, axis=1).pvalue <= rate)
    assert found == pytest.approx(POWER, abs=0.01)  # three deviations of a share of 20,000


def test_more_seeds_and_smaller_spreads_separate_more() -> None:
    by_seeds = [smallest_difference(1.0, seeds, 0.05) for seeds in range(2, 30)]
    assert by_seeds == sorted(by_seeds, reverse=True)
    assert smallest_difference(2.0, 5, 0.01) == pytest.approx(2 * smallest_difference(1.0, 5, 0.01))


def test_the_published_table_needs_more_than_three_seeds() -> None:
    table = api.power(RECORDS, [3, 12])
    last = table[table["measure"] == "ucmerced after the last task"]
    single, corrected = last["uncorrected"].tolist(), last["corrected"].tolist()
    # 33 records of 11 methods with three seeds, and 30 methods with one.
    frame = api.records(RECORDS)
    final = frame[
        (frame["task"] == 4) & (frame["split"] == "test") & (frame["score"] == "micro_map")
    ]
    wide = final.pivot(index="seed", columns="method", values="value").dropna(axis=1)
    variances = [
        (wide[one] - wide[two]).var()
        for number, one in enumerate(wide)
        for two in list(wide)[number + 1 :]
    ]
    assert last["spread"].tolist() == pytest.approx([100 * np.sqrt(np.mean(variances))] * 2)
    assert corrected[0] > 4 * corrected[1]
    assert (table["uncorrected"] < table["corrected"]).all()
    printed = call("leaderboard", "power", RECORDS, "--seeds", "3,12").stdout
    assert "12 seeds" in printed
    assert f"{single[1]:.1f} / {corrected[1]:.1f}" in printed


def test_too_few_seeds_are_refused(tmp_path: Path) -> None:
    assert "at least two seeds" in refused("leaderboard", "power", RECORDS, "--seeds", "1")
    assert isinstance(api.power(RECORDS), pd.DataFrame)
    one = next((RECORDS / "cpu").glob("swav-seed0-*.json"))
    (tmp_path / "one.json").write_bytes(one.read_bytes())
    assert "two common seeds" in refused("leaderboard", "power", tmp_path)
