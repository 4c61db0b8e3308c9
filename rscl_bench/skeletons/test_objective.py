"""The objective keeps the contract of objectives, and its method fits a scenario."""

from pathlib import Path

import rscl_bench as rb
from rscl_bench.resolve import resolve_run
from rscl_bench.testing import check_objective

CODE = Path(__file__).with_name("skeleton.py")
RECIPE = Path(__file__).with_name("skeleton.toml")


def test_contract() -> None:
    check_objective(f"{CODE}:Skeleton")


def test_recipe() -> None:
    run = resolve_run(rb.load_scenario("scene4"), rb.load_method(RECIPE))
    assert run.method.name == "skeleton"
