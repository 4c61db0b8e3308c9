"""The scenarios of TorchGeo's datasets in docs/extending.md run as they stand on the page."""

from pathlib import Path

import pytest
from helpers import torchgeo_archives as archives
from helpers.cli import ONE_EPOCH, call, records_in, refused
from helpers.pages import write_examples

from rscl_bench.results.schema import RunRecord


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_examples(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("archives")
    archives.eurosat(root)
    for split in ("Train", "Val"):
        archives.loveda(root, split)
    archives.landsat8(root, side=256)
    archives.cdl(root / "landsat8" / "cdl", (400_000.0, 5_000_000.0), 256)
    return root


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)


def run(scenario: Path, data: Path, out: Path) -> RunRecord:
    words = ("--scenario", scenario, "--method", "finetune", "--data-root", data, "--out", out)
    result = call("run", *words, *ONE_EPOCH)
    assert result.exit_code == 0, result.output
    (record,) = records_in(out)
    return record


@pytest.mark.parametrize(
    ("name", "tiles", "labels"),
    [("eurosat", [20], 10), ("loveda", [8, 8], 7), ("landsat", None, 2)],
)
def test_a_dataset_of_torchgeo_is_one_toml(
    name: str, tiles: list[int] | None, labels: int, examples: Path, data: Path, tmp_path: Path
) -> None:
    record = run(examples / f"{name}.toml", data, tmp_path / "runs")
    assert record.identity.edition == "real"
    found = [task.tiles for task in record.tasks]
    assert found == tiles if tiles is not None else 0 < found[0] < 64
    (probe,) = record.probes
    assert probe.labels == labels
    scores = [row[probe.name].test.micro for row in record.scores]
    assert all(score is not None and 0 < score <= 1 for score in scores)


def test_without_the_archive_the_run_stops_before_its_first_step(
    examples: Path, tmp_path: Path
) -> None:
    scenario = examples / "eurosat.toml"
    words = ("--scenario", scenario, "--method", "finetune", "--data-root", tmp_path)
    message = refused("run", *words, "--out", tmp_path / "runs")
    for text in ("missing or partial", "licence: MIT", str(tmp_path / "eurosat")):
        assert text in message
    assert not list((tmp_path / "runs").rglob("record.json"))


def test_without_a_data_root_a_class_without_sketch_is_refused(
    examples: Path, tmp_path: Path
) -> None:
    words = ("--scenario", examples / "loveda.toml", "--method", "finetune", "--out", tmp_path)
    assert "torchgeo:LoveDA has no sketch: give the folder of its real archive" in refused(
        "run", *words
    )


def test_show_tells_what_is_known_of_a_dataset() -> None:
    text = call("show", "torchgeo:EuroSAT").stdout
    for part in (
        "Licence: MIT",
        "nir-narrow (865 nm)",
        "Splits: `train`, `val`, `test`",
        "SeaLake",
    ):
        assert part in text
    undeclared = call("show", "torchgeo:SSL4EOL").stdout
    assert "Licence: CC0-1.0" in undeclared
    assert "- Bands:" not in undeclared
    assert "did you mean 'EuroSAT'?" in refused("show", "torchgeo:EuroSat")


def test_the_cache_lists_the_tiles(examples: Path, data: Path) -> None:
    words = ("--scenario", examples / "loveda.toml", "--data-root", data)
    assert call("data", "prepare", *words).exit_code == 0
    assert "torchgeo:LoveDA" in call("data", "list").stdout
