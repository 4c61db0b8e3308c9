"""The dataset keeps the contract of datasets, and its scenario runs."""

from pathlib import Path

import pytest
import rscl_bench as rb
from rscl_bench.testing import check_adapter

CODE = Path(__file__).with_name("skeleton.py")
SCENARIO = Path(__file__).with_name("skeleton.toml")


def test_contract(tmp_path: Path) -> None:
    check_adapter(f"{CODE}:Skeleton", tmp_path)


def test_scenario(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)  # sketches in place of archives
    short = {"training.epochs": 1}
    record = rb.run(SCENARIO, "finetune", set=short, device="cpu", out=tmp_path)
    assert len(record.scores) == 1 + len(record.tasks)  # untrained, and after each task
