"""Tests the table of scores in long form, and leaderboards as data frames."""

import math
from pathlib import Path

import pytest
from helpers.records import FOLDER, record_of, save

from rscl_bench.leaderboards.build import build_leaderboard, leaderboards
from rscl_bench.leaderboards.frame import COLUMNS, records_frame


def test_frame_has_a_row_per_run_task_probe_split_and_score() -> None:
    record = record_of(finals=(0.4, None), overrides={"objective.mask_ratio": 0.5})
    frame = records_frame([record, record_of(seed=1)])
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == 2 * 3 * 2, "two runs, three probings, two scores of one test split"
    micro = frame[(frame["run_id"] == record.id) & (frame["score"] == "micro_map")]
    assert micro["task_name"].tolist() == ["random-encoder", "sea", "land"]
    assert micro["value"].tolist()[:2] == [0.2, 0.4]
    assert math.isnan(micro["value"].tolist()[2])
    assert set(micro["method"]) == {"finetune[objective.mask_ratio=0.5]"}


def test_frame_without_records_is_empty() -> None:
    assert records_frame([]).empty


def test_leaderboard_frames_equal_the_csv(tmp_path: Path) -> None:
    save(tmp_path / "records", "better", 3.0)
    save(tmp_path / "records", "worse", 0.8)
    build_leaderboard(tmp_path / "records", tmp_path / "out")
    header, *lines = (tmp_path / "out" / FOLDER / "leaderboard.csv").read_text().splitlines()
    (frame,) = leaderboards(tmp_path / "records").values()
    assert list(frame.columns) == header.split(",")
    assert frame["method"].tolist() == [line.split(",")[0] for line in lines]
    column = "T2.outer.micro.mean"
    index = header.split(",").index(column)
    printed = [float(line.split(",")[index]) for line in lines]
    assert frame[column].tolist() == pytest.approx(printed, abs=0.005001)
