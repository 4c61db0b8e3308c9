"""The examples of docs/extending.md run as they stand on the page."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import ONE_EPOCH, call, records_in, refused
from helpers.modules import load_file
from helpers.pages import code_blocks, read, write_examples

from rscl_bench.registry import Entry
from rscl_bench.results.schema import RunRecord


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    write_examples(folder)
    return folder


@pytest.fixture(autouse=True)
def shared_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path_factory.getbasetemp() / "docs-cache"))
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)


def run(out: Path, scenario: Path, method: Path | str, *settings: str) -> RunRecord:
    options = [word for setting in settings for word in ("--set", setting)]
    arguments = ("--scenario", scenario, "--method", method, "--out", out, *ONE_EPOCH)
    result = call("run", *arguments, *options)
    assert result.exit_code == 0, result.output
    (record,) = records_in(out)
    return record


def recipe_of(record: RunRecord) -> Any:
    return record.identity.method


def losses(record: RunRecord) -> list[float]:
    """Return the final loss of every task; every task must have one."""
    final = [task.final_loss for task in record.tasks if task.final_loss is not None]
    assert len(final) == len(record.tasks)
    return final


def test_method_example(examples: Path, tmp_path: Path) -> None:
    record = run(tmp_path / "mine", examples / "stripes.toml", examples / "mine.toml")
    assert recipe_of(record)["objective"]["mask_ratio"] == 0.6
    assert recipe_of(record)["strategies"][0]["alpha"] == 1.0
    other = run(
        tmp_path / "set",
        examples / "stripes.toml",
        examples / "mine.toml",
        "strategies.data-mixup.alpha=0.4",
    )
    assert recipe_of(other)["strategies"][0]["alpha"] == 0.4
    assert losses(other)[0] == losses(record)[0]
    assert losses(other)[1] != losses(record)[1]


def test_dataset_and_probe_example(examples: Path, tmp_path: Path) -> None:
    record = run(tmp_path, examples / "stripes-extended.toml", "finetune")
    assert record.identity.scenario.name == "stripes"
    assert [task.tiles for task in record.tasks] == [24, 24]
    assert [probe.name for probe in record.probes] == ["stripes", "stripes-ridge"]
    assert {probe.labels for probe in record.probes} == {2}
    assert record.probes[1].probe.startswith("ridge.py:RidgeProbe@")
    knn, ridge = ([row[p.name].test for row in record.scores] for p in record.probes)
    assert knn != ridge


def test_wrong_parameter_of_the_probe_example_is_refused(examples: Path, tmp_path: Path) -> None:
    text = (examples / "stripes-extended.toml").read_text(encoding="utf-8")
    broken = examples / "stripes-broken.toml"
    broken.write_text(text.replace("penalty = 0.1", "penalty = 0"), encoding="utf-8")
    arguments = ("--scenario", broken, "--method", "finetune", "--out", tmp_path)
    assert "'penalty': Input should be greater than 0, got" in refused("run", *arguments)


def test_objective_example(examples: Path, tmp_path: Path) -> None:
    scenario, method = examples / "stripes.toml", examples / "denoise.toml"
    records = [
        run(tmp_path / sigma, scenario, method, f"objective.sigma={sigma}")
        for sigma in ("0.3", "0.2")
    ]
    assert recipe_of(records[0])["objective"]["name"].startswith("denoise.py:Denoise@")
    assert losses(records[0])[0] != losses(records[1])[0]
    plain = run(
        tmp_path / "plain",
        scenario,
        method,
        "objective.sigma=0.3",
        "strategies.model-mixup.beta=0",
    )
    assert losses(plain)[0] == losses(records[0])[0]
    assert losses(plain)[1] < losses(records[0])[1], "the distillation adds to the loss"


def test_strategy_example(examples: Path, tmp_path: Path) -> None:
    plain = run(tmp_path / "plain", examples / "stripes.toml", "finetune")
    anchored = run(tmp_path / "anchored", examples / "stripes.toml", examples / "anchor.toml")
    assert losses(anchored)[0] == losses(plain)[0]
    assert losses(anchored)[1] > losses(plain)[1]


def test_unknown_parameter_of_an_example_is_refused(examples: Path) -> None:
    sentence = refused(
        "run",
        *("--scenario", examples / "stripes.toml", "--method", examples / "denoise.toml"),
        *("--set", "objective.sigme=1"),
    )
    assert "did you mean 'sigma'?" in sentence


def test_two_views_example(examples: Path, tmp_path: Path) -> None:
    record = run(tmp_path, examples / "stripes.toml", examples / "simsiam.toml")
    assert recipe_of(record)["objective"]["name"].startswith("simsiam.py:SimSiam@")
    first, second = losses(record)
    assert -1 <= first <= 1
    assert second < first, "the distillation adds a negative cosine"


def test_contracts_example(examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(examples)
    module = load_file(examples / "test_extensions.py")
    module.test_stripes(tmp_path)
    module.test_denoise()
    module.test_simsiam()
    module.test_anchor()
    module.test_ridge()


def example_entry_points() -> dict[str, dict[str, str]]:
    (code,) = [
        block.code
        for block in code_blocks(read("docs", "extending.md"))
        if block.line_before.startswith("`pyproject.toml` of that package")
    ]
    points: dict[str, dict[str, str]] = tomllib.loads(code)["project"]["entry-points"]
    return points


def install(folder: Path, module: Path, name: str = "my-package") -> Path:
    """Lay out the example package as an installer does; return its folder for ``sys.path``."""
    site = folder / f"site-{name}"
    package = site / "my_package"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "anchor.py").write_bytes(module.read_bytes())
    metadata = site / f"{name.replace('-', '_')}-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", encoding="utf-8"
    )
    lines = [
        line
        for group, entries in example_entry_points().items()
        for line in (f"[{group}]", *(f"{key} = {value}" for key, value in entries.items()))
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return site


def test_entry_point_example(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = install(tmp_path, examples / "anchor.py")
    recipe = tmp_path / "named.toml"
    text = (examples / "anchor.toml").read_text(encoding="utf-8")
    recipe.write_text(text.replace("anchor.py:Anchor", "anchor"), encoding="utf-8")
    assert "Unknown strategy 'anchor'" in refused("show", recipe)
    command = [sys.executable, "-m", "rscl_bench.cli", "list"]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": str(site)}
    )
    assert re.search(r"^  anchor +from package my-package$", done.stdout, re.MULTILINE)

    monkeypatch.syspath_prepend(site)
    anchored = run(
        tmp_path / "runs", examples / "stripes.toml", recipe, "strategies.anchor.weight=5"
    )
    assert recipe_of(anchored)["strategies"] == [{"name": "anchor", "weight": 5.0}]
    by_path = run(tmp_path / "path", examples / "stripes.toml", examples / "anchor.toml")
    assert losses(by_path)[0] == losses(anchored)[0]
    assert losses(by_path)[1] != losses(anchored)[1]


def test_two_packages_with_one_name_are_refused(
    examples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("my-package", "your-package"):
        monkeypatch.syspath_prepend(install(tmp_path, examples / "anchor.py", name))
    assert "Two packages offer the strategy 'anchor'" in refused("list")


def test_registry_line_is_an_entry() -> None:
    (code,) = [
        block.code
        for block in code_blocks(read("docs", "extending.md"))
        if block.language == "python" and block.code.startswith('"anchor": Entry')
    ]
    table = eval("{" + code + "}", {"Entry": Entry})  # as the line stands in the registry
    assert isinstance(table["anchor"], Entry)
    assert table["anchor"].target == "rscl_bench.strategies.anchor:Anchor"


def test_training_example(examples: Path, tmp_path: Path) -> None:
    record = run(tmp_path, examples / "stripes.toml", examples / "gentle.toml")
    assert recipe_of(record)["training"] == {
        "learning_rate": 3e-4,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "warmup_epochs": 0.5,
        "betas": [0.9, 0.95],
    }
    plain = run(tmp_path / "plain", examples / "stripes.toml", "finetune")
    assert plain.identity.protocol == record.identity.protocol
    assert losses(plain) != losses(record)


def test_short_name_of_the_strategy_example(examples: Path, tmp_path: Path) -> None:
    record = run(
        tmp_path,
        examples / "stripes.toml",
        examples / "anchor.toml",
        "strategies.anchor.weight=1",
    )
    assert recipe_of(record)["strategies"][0]["weight"] == 1.0
