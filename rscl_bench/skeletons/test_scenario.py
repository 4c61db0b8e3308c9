"""The scenario runs on sketches of its archives, whose scores mean nothing."""

from pathlib import Path

import pytest
import rscl_bench as rb

SCENARIO = Path(__file__).with_name("skeleton.toml")


def test_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)  # sketches in place of archives
    short = {"training.epochs": 1}
    record = rb.run(SCENARIO, "finetune", set=short, device="cpu", out=tmp_path)
    assert len(record.scores) == 1 + len(record.tasks)  # untrained, and after each task
