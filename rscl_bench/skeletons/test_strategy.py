"""The strategy keeps the contract of strategies, and its method fits a scenario."""

from pathlib import Path

from rscl_bench.api import explain
from rscl_bench.testing import check_strategy

CODE = Path(__file__).with_name("skeleton.py")
RECIPE = Path(__file__).with_name("skeleton.toml")


def test_contract() -> None:
    check_strategy(f"{CODE}:Skeleton")


def test_recipe() -> None:
    (shown,) = explain(str(RECIPE), scenario="scene4")
    assert shown.kind == "method"
