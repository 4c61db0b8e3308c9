"""Tests the short table of a leaderboard, and the tidy table of scores."""

from pathlib import Path

import pandas as pd
import pytest
from helpers.records import FOLDER, record_of, save

import rscl_bench as rb
from rscl_bench.console import print_leaderboards
from rscl_bench.leaderboards.build import build_leaderboard
from rscl_bench.leaderboards.formats import SKETCH_WARNING
from rscl_bench.leaderboards.summary import summary
from rscl_bench.results.record import write_record


def test_short_table_has_final_scores_forgetting_and_ranks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    probes = {"inner": "sea", "outer": None}
    for seed, final in enumerate((0.5, 0.6)):
        record = record_of(seed=seed, finals=(0.7, final), probes=probes)
        write_record(record, tmp_path / "records" / f"{seed}.json")
    bf16 = record_of(precision="bf16", finals=(0.4, None), probes=probes)
    write_record(bf16, tmp_path / "records" / "bf16.json")
    files = build_leaderboard(tmp_path / "records", tmp_path / "out")
    short = summary(tmp_path / "out" / FOLDER / "leaderboard.csv")
    assert short.columns == (
        "method",
        "precision",
        "seeds",
        "inner micro-mAP",
        "inner macro-mAP",
        "outer micro-mAP",
        "outer macro-mAP",
        "forgetting, micro",
        "rank, inner",
        "rank, outer",
    )
    half = "63.53"  # t(0.975, 1) · 7.0711 / √2 = 12.7062 · 5
    spread = [f"55.00 ± {half}", "27.50 ± 31.77", f"55.00 ± {half}", "27.50 ± 31.77"]
    assert list(short.rows[3]) == ["finetune", "fp32", "2", *spread, f"15.00 ± {half}", "–", "–"]
    assert list(short.rows[4]) == ["finetune", "bf16", "1", *["–"] * 7]
    assert (short.title, short.sketch) == ("toy-v1-sketch/quick", True)
    print_leaderboards(files)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("toy-v1-sketch/quick: mAP in % after the last task, test split")
    assert sum("finetune" in line for line in printed) == 2
    assert printed[-1] == SKETCH_WARNING


def test_real_edition_has_no_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_record(record_of(edition="real"), tmp_path / "records" / "0.json")
    print_leaderboards(build_leaderboard(tmp_path / "records", tmp_path / "out"))
    printed = capsys.readouterr().out
    assert "│ finetune " in printed
    assert "forgetting" not in printed
    assert SKETCH_WARNING not in printed


def test_tidy_table_equals_the_frame_of_the_records(tmp_path: Path) -> None:
    save(tmp_path / "records", "better", 3.0)
    save(tmp_path / "records", "worse", 0.8, overrides={"objective.mask_ratio": 0.5})
    build_leaderboard(tmp_path / "records", tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / FOLDER / "scores.csv")
    frame = rb.records(tmp_path / "records")
    order = ["method", "seed", "task", "probe", "score"]
    pd.testing.assert_frame_equal(
        table.sort_values(order, ignore_index=True),
        frame.sort_values(order, ignore_index=True),
        check_exact=True,
    )
    last = table[(table["score"] == "micro_map") & (table["task"] == 2)]
    assert len(last) == 6
