"""The method fits a scenario: its parameters are known and their values valid."""

from pathlib import Path

import rscl_bench as rb
from rscl_bench.resolve import resolve_run

RECIPE = Path(__file__).with_name("skeleton.toml")


def test_recipe() -> None:
    run = resolve_run(rb.load_scenario("scene4"), rb.load_method(RECIPE))
    assert run.method.name == "skeleton"
