"""Tests the table of scores in long form, and leaderboards as data frames."""

import math
from pathlib import Path

import pytest
from helpers.records import FOLDER, record_of, save

from rscl_bench.leaderboards.build import build_leaderboard, leaderboards
from rscl_bench.leaderboards.frame import COLUMNS, records_frame
from rscl_bench.results.record import write_record
from rscl_bench.results.schema import FlopsRecord


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


def test_operations_of_strategies_are_in_the_totals(tmp_path: Path) -> None:
    """A record of an earlier version has no count of strategies, and keeps the objective's."""
    before = FlopsRecord(with_gradient=3 * 10**9, without_gradient=10**9)
    now = before.model_copy(
        update={"strategies_with_gradient": 2 * 10**9, "strategies_without_gradient": 5 * 10**9}
    )
    for name, flops in (("earlier", before), ("now", now)):
        record = record_of(method=name).model_copy(update={"flops": flops})
        write_record(record, tmp_path / f"{name}.json")
    (frame,) = leaderboards(tmp_path).values()
    columns = ["method", "gflops_with_gradient", "gflops_without_gradient"]
    rows = frame[columns].to_numpy().tolist()
    assert ["earlier", 3.0, 1.0] in rows
    assert ["now", 5.0, 6.0] in rows
    assert [before.of_task(task) for task in (0, 1, 2)] == [4 * 10**9] * 3
    assert [now.of_task(task) for task in (0, 1, 2)] == [4 * 10**9, 11 * 10**9, 11 * 10**9]
