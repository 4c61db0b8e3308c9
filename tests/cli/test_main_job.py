"""The shipped scenarios, from sketch archives to records, through the command line."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers.pages import code_blocks, read
from safetensors import safe_open

from rscl_bench.declarations import declarations
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord

pytestmark = pytest.mark.slow

QUICK = ("--set", "training.epochs=1", "--set", "training.warmup_epochs=0")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def run(cache: Path, out: Path, *arguments: str) -> RunRecord:
    environment = {**os.environ, "RSCL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    environment.pop("RSCL_DATA_ROOT", None)
    done = subprocess.run(
        [sys.executable, "-m", "rscl_bench.cli", "run", "--out", str(out), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Sketch edition")
    (path,) = out.rglob("record.json")
    assert str(path) in done.stdout
    return read_record(path)


def test_domain_probes_fill_the_matrix(cache: Path, tmp_path: Path) -> None:
    record = run(cache, tmp_path, "--scenario", "rs4-domains", "--method", "cosmae", *QUICK)
    assert record.identity.edition == "sketch"
    assert len(record.scores) == 5  # untrained, and after each of four tasks
    assert {p.name: p.task for p in record.probes} == {
        "ucmerced": None,
        **{task.name: task.name for task in record.tasks},
    }
    for scores in record.scores:
        assert all(score.test.micro is not None for score in scores.values())
    metrics = record.continual.micro
    assert None not in (
        metrics.final_average,
        metrics.average_incremental,
        metrics.backward_transfer,
        metrics.forgetting,
        metrics.forward_transfer,
    )
    assert set(metrics.outside) == {"ucmerced"}


def test_scene4_has_no_backward_transfer(cache: Path, tmp_path: Path) -> None:
    record = run(cache, tmp_path, "--scenario", "scene4", "--method", "finetune", *QUICK)
    assert [task.name for task in record.tasks] == [
        "aid-built-up",
        "rsscn7",
        "aid-nature",
        "aid-transport",
    ]
    assert record.continual.micro.backward_transfer is None
    assert record.continual.micro.forgetting is None
    assert record.continual.micro.outside["ucmerced"].final is not None


@pytest.mark.parametrize(
    ("task", "bands"),
    [
        (
            "us3d",
            ["coastal", "blue", "green", "yellow", "red", "red-edge", "nir1", "nir2"],
        ),
        ("treesatai", ["nir", "green", "blue", "red"]),
    ],
)
def test_all_bands_are_a_change_of_toml(
    cache: Path, tmp_path: Path, task: str, bands: list[str]
) -> None:
    raw = tomllib.loads(declarations("scenarios")["rs4-domains"].read_text(encoding="utf-8"))
    raw["tasks"] = [{**t, "bands": bands} for t in raw["tasks"] if t["name"] == task]
    raw["probes"] = [{**p, "bands": bands} for p in raw["probes"] if p.get("task") == task]
    path = tmp_path / "bands.toml"
    path.write_text(as_toml(raw), encoding="utf-8")
    out = tmp_path / "out"
    run(cache, out, "--scenario", str(path), "--method", "finetune", *QUICK)
    (weights,) = out.rglob("encoder.safetensors")
    with safe_open(weights, "numpy") as file:
        assert json.loads(file.metadata()["rscl_bench"])["bands"] == bands
        (embedding,) = [name for name in file.keys() if name.endswith("patch_embed.proj.weight")]  # noqa: SIM118
        assert file.get_slice(embedding).get_shape() == [192, len(bands), 8, 8]


#: Points of micro- and macro-mAP by which training must end above both lower references. At most
#: half of the smallest gain that was measured (CoSMAE, micro-mAP), for the noise of machines.
GAIN = 4


@pytest.mark.parametrize("method", ["finetune", "cosmae"])
def test_training_helps_on_sketches(cache: Path, tmp_path: Path, method: str) -> None:
    """A trained encoder finds labels that neither colours nor an untrained encoder give away."""
    record = run(cache, tmp_path, "--scenario", "rs4", "--method", method)
    untrained, trained = (record.scores[row]["ucmerced"].test for row in (0, -1))
    statistics = record.pixel_statistics["ucmerced"].test
    for kind in ("micro", "macro"):
        last, *lower = (100 * getattr(score, kind) for score in (trained, untrained, statistics))
        assert last > max(lower) + GAIN


def as_toml(raw: dict[str, Any]) -> str:
    """Write a scenario as TOML: dotted keys, with scalars and lists as in JSON."""
    lines = [f"{k} = {json.dumps(raw[k])}" for k in ("name", "version", "title")]
    lines.append(f"default_protocol = {json.dumps(raw['default_protocol'])}")
    for kind in ("tasks", "probes"):
        for part in raw[kind]:
            lines.append(f"[[{kind}]]")
            lines += [f"{name} = {json.dumps(value)}" for name, value in dotted(part)]
    for name, protocol in raw["protocols"].items():
        lines.append(f"[protocols.{name}]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in dotted(protocol)]
    return "\n".join(lines) + "\n"


def dotted(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for name, item in value.items():
        if isinstance(item, dict):
            flat += dotted(item, f"{prefix}{name}.")
        else:
            flat.append((f"{prefix}{name}", item))
    return flat


def test_python_of_the_readme(cache: Path, tmp_path: Path) -> None:
    """The code block runs unchanged in an empty folder, and writes the files that it names."""
    (block,) = (block for block in code_blocks(read("README.md")) if block.language == "python")
    environment = {**os.environ, "RSCL_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    environment.pop("RSCL_DATA_ROOT", None)
    done = subprocess.run(
        [sys.executable, "-c", block.code],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = tmp_path.rglob("record.json")
    record = read_record(path)
    micro, forgetting = record.scores[-1]["aerial"].test.micro, record.continual.micro.forgetting
    assert done.stdout.splitlines()[-3:] == [str(micro), str(forgetting), "torch.Size([2, 64])"]
    assert len(list(tmp_path.rglob("leaderboard.csv"))) == 1
