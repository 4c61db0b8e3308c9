"""The method fits a scenario: its parameters are known and their values valid."""

from pathlib import Path

from rscl_bench.api import explain

RECIPE = Path(__file__).with_name("skeleton.toml")


def test_recipe() -> None:
    (shown,) = explain(str(RECIPE), scenario="scene4")
    assert shown.kind == "method"
