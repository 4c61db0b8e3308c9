"""Scenarios on archives of TorchGeo and with all bands, on their sketches."""

from pathlib import Path

import pytest
from helpers.cli import ONE_EPOCH, call, records_in, refused

from rscl_bench.declarations import load_scenario

SCENARIOS = ("gsd-up", "landsat-generations", "optical-to-sar", "rs4-bands", "seasons", "countries")
#: The scenario reads Parquet files with this package.
NEEDS = {"countries": "pyarrow"}
every_scenario = pytest.mark.parametrize("scenario", SCENARIOS)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(cache))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)


def require_packages(scenario: str) -> None:
    if scenario in NEEDS:
        pytest.importorskip(NEEDS[scenario])


@every_scenario
def test_scenario_is_explained(scenario: str) -> None:
    shown = call("show", scenario)
    assert shown.exit_code == 0, shown.output
    assert f'name = "{scenario}"' in shown.stdout


@every_scenario
def test_missing_archive_is_said_in_a_sentence(scenario: str, tmp_path: Path) -> None:
    require_packages(scenario)
    message = refused(
        "run", "--scenario", scenario, "--method", "finetune", "--data-root", tmp_path
    )
    assert "licence: " in message
    assert f"into {tmp_path}" in message
    # TorchGeo cannot download xView2, and the archives of rs4 have readers of their own.
    downloaded = scenario not in ("optical-to-sar", "rs4-bands")
    assert ("rscl-bench data fetch" in message) == downloaded


@pytest.mark.slow
@every_scenario
def test_sketches_are_packed(scenario: str) -> None:
    require_packages(scenario)
    packed = call("data", "prepare", "--scenario", scenario)
    assert packed.exit_code == 0, packed.output


@pytest.mark.slow
@every_scenario
def test_one_epoch_probes_every_domain(scenario: str, tmp_path: Path) -> None:
    require_packages(scenario)
    settings = ("--set", "training.warmup_epochs=0", "--out", tmp_path)
    run = call("run", "--scenario", scenario, "--method", "finetune", *ONE_EPOCH, *settings)
    assert run.exit_code == 0, run.output
    (record,) = records_in(tmp_path)
    declared = load_scenario(scenario)
    assert len(record.scores) == 1 + len(declared.tasks)
    for row in record.scores:
        assert set(row) == {probe.name for probe in declared.probes}
