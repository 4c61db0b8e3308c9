"""Components by path, and the paths that users give."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.cli import call, error_lines, records_in, refused
from helpers.paths import TOY

import rscl_bench as rb
from rscl_bench import registry
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine.build import build_objective
from rscl_bench.errors import SpecError
from rscl_bench.resolve import resolve_run

CODE = '''
from typing import Annotated
from pydantic import Field
from rscl_bench.models.vit import ViT
from rscl_bench.objectives.mae import MAE
from rscl_bench.probes.ml_knn import MLkNNProbe
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Strategy


class OwnNet(ViT):
    """A backbone."""


class OwnMAE(MAE):
    """An objective."""


class OwnKNN(MLkNNProbe):
    """A probe."""


class L2Previous(Strategy):
    """A strategy."""

    class Params(Spec):
        weight: Annotated[float, Field(ge=0)] = 1.0


class Renamed(L2Previous):
    NAME = "another-name"


class Shouting(L2Previous):
    NAME = "NOT A NAME"


class Colliding(L2Previous):
    NAME = "l2-previous"
'''
RECIPE = """
name = "mine"
title = "Like own.py:OwnMAE but better"
objective = { name = "own.py:OwnMAE", decoder_dim = 24, decoder_depth = 1, decoder_heads = 2 }

[[strategies]]
name = "own.py:L2Previous"
"""


def project(folder: Path, *strategies: str) -> tuple[Path, Path]:
    """Write a scenario and a recipe of one's own, with all kinds of components by path."""
    folder.mkdir(parents=True)
    shutil.copy(TOY.parent / "adapters.py", folder)
    (folder / "own.py").write_text(CODE, encoding="utf-8")
    text = TOY.read_text(encoding="utf-8").replace('name = "vit"', 'name = "own.py:OwnNet"')
    text = text.replace('val_split = "val"', 'val_split = "val"\nprobe = "own.py:OwnKNN"')
    scenario, recipe = folder / "toy.toml", folder / "mine.toml"
    scenario.write_text(text, encoding="utf-8")
    more = "".join(f'\n[[strategies]]\nname = "own.py:{name}"\n' for name in strategies)
    recipe.write_text(RECIPE + more, encoding="utf-8")
    return scenario, recipe


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The same run in two folders, and the folders of its files."""
    outs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RSCL_DATA_ROOT", raising=False)
        for number in range(2):
            folder = tmp_path_factory.mktemp(f"at{number}")
            patch.setenv("RSCL_CACHE", str(folder / "cache"))
            scenario, recipe = project(folder / "project")
            arguments = ("--scenario", scenario, "--method", recipe, "--out", folder / "runs")
            settings = ("--set", "training.epochs=1", "--set", "strategies.l2-previous.weight=0.5")
            result = call("run", *arguments, *settings, "--device", "cpu")
            assert result.exit_code == 0, result.output
            outs.append(folder / "runs")
    return outs


def test_two_folders_give_one_id(runs: list[Path]) -> None:
    (first,), (second,) = map(records_in, runs)
    assert first.id == second.id
    assert first.identity.overrides["strategies.l2-previous.weight"] == 0.5
    strategies: Any = first.identity.method["strategies"]
    assert strategies[0]["name"].startswith("own.py:L2Previous@")
    assert strategies[0]["weight"] == 0.5
    assert first.encoder_digest == second.encoder_digest


def test_no_path_is_in_any_result(runs: list[Path], tmp_path: Path) -> None:
    built = call("leaderboard", "build", runs[0], "--out", tmp_path)
    assert built.exit_code == 0, built.output
    folder = runs[0].parent
    written = [path for out in (runs[0], tmp_path) for path in out.rglob("*") if path.is_file()]
    assert {path.suffix for path in written} >= {".json", ".safetensors", ".csv", ".md"}
    for path in written:
        assert str(folder).encode() not in path.read_bytes(), path


def test_encoder_of_a_backbone_by_path(runs: list[Path]) -> None:
    (path,) = runs[0].rglob("encoder.safetensors")
    with pytest.raises(SpecError, match=r"is the class own.py:OwnNet; give the path"):
        rb.load_encoder(path)
    own = runs[1].parent / "project" / "own.py"
    assert rb.load_encoder(path, f"{own}:OwnNet").feature_dim == 24
    edited = own.parent / "edited" / "own.py"
    edited.parent.mkdir()
    edited.write_text(f"{CODE}\n# edited\n", encoding="utf-8")
    with pytest.raises(SpecError, match=r"was trained with own.py:OwnNet@.* give the file of the"):
        rb.load_encoder(path, f"{edited}:OwnNet")
    with pytest.raises(SpecError, match=r"takes file\.py:Class"):
        rb.load_encoder(path, "vit")


def spec_of(folder: Path, *strategies: str, **overrides: Any) -> Any:
    scenario, recipe = project(folder, *strategies)
    return resolve_run(load_scenario(str(scenario)), load_method(str(recipe)), overrides=overrides)


def test_short_names(tmp_path: Path) -> None:
    overrides = {"strategies.another-name.weight": 2.0, "strategies.l2-previous.weight": 3.0}
    spec = spec_of(tmp_path / "a", "Renamed", **overrides)
    assert [one.parameters["weight"] for one in spec.method.strategies] == [3.0, 2.0]
    assert spec.method.title == "Like own.py:OwnMAE but better"
    own = f"{tmp_path / 'a' / 'own.py'}"
    assert registry.short_name("objectives", f"{own}:OwnMAE") == "own-mae"
    assert registry.short_name("backbones", f"{own}:OwnNet") == "own-net"
    assert registry.short_name("probes", f"{own}:OwnKNN") == "own-knn"
    with pytest.raises(SpecError, match=r"Known: objective, strategies.l2-previous\."):
        spec_of(tmp_path / "b", **{f"strategies.{own}:L2Previous.weight": 1})
    with pytest.raises(SpecError, match="'NOT A NAME' is no short name"):
        spec_of(tmp_path / "c", "Shouting")


def test_equal_short_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="lists a strategy twice: l2-previous, l2-previous"):
        spec_of(tmp_path / "a", "Colliding")
    scenario, recipe = project(tmp_path / "b")
    other = tmp_path / "other"
    project(other)
    text = scenario.read_text(encoding="utf-8")
    named = f'dataset = "{other / "adapters.py"}:Toy"\nsplit = "test"'
    changed = text.replace('dataset = "adapters.py:Toy"\nsplit = "test"', named)
    assert changed != text
    scenario.write_text(changed, encoding="utf-8")
    with pytest.raises(SpecError, match="have the same short name 'toy' in one run"):
        resolve_run(load_scenario(str(scenario)), load_method(str(recipe)))


def test_path_of_a_backbone_is_refused_on_the_command_line(tmp_path: Path) -> None:
    name = f"{tmp_path / 'a' / 'own.py'}:OwnMAE"
    with pytest.raises(SpecError, match="name a class of your own in the TOML"):
        spec_of(tmp_path / "a", **{"backbone.name": name})


# Bands.


def test_a_sensor_without_red_green_and_blue_gives_all_its_bands(tmp_path: Path) -> None:
    scenario, recipe = project(tmp_path / "a")
    adapters = tmp_path / "a" / "adapters.py"
    plain = adapters.read_text(encoding="utf-8")
    thermal = (
        "\n\nfrom rscl_bench.sensors import Band, Sensor\n"
        "Toy.sensor = Sensor('t', (Band('lwir', 1e4),), 'digital number', 'uint8', 255.0, 1.0)\n"
    )
    adapters.write_text(plain + thermal, encoding="utf-8")
    loaded = load_scenario(str(scenario))
    assert set(loaded.bands().values()) == {("lwir",)}
    spec = resolve_run(loaded, load_method(str(recipe)))
    assert build_objective(spec, torch.device("cpu")).encoder.channels == 1
    text = scenario.read_text(encoding="utf-8")
    scenario.write_text(text.replace("[[probes]]", '[[probes]]\nbands = ["red", "lwir"]'))
    with pytest.raises(SpecError, match=r"task 'first' 1 \(lwir\); .*probe 'toy' 2 \(red, lwir\)"):
        load_scenario(str(scenario))


def test_the_registry_knows_which_sensors_have_red_green_and_blue() -> None:
    """So that a scenario of such datasets is read without importing them."""
    for name, entry in registry.BUILTIN["datasets"].items():
        adapter = registry.load("datasets", name)
        if adapter.declared_by_options:
            assert not entry.has_rgb, name
            continue
        bands = {band.name for band in adapter.sensor.bands}
        assert entry.has_rgb == (bands >= {"red", "green", "blue"}), name


# Paths of users.


def test_home_is_expanded_everywhere(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell expands ``--out ~/runs`` and leaves ``--out=~/runs`` alone."""
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    project(home / "project")
    elsewhere.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("RSCL_CACHE", "~/cache")
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    monkeypatch.chdir(elsewhere)
    arguments = ("--scenario=~/project/toy.toml", "--method=~/project/mine.toml", "--out=~/runs")
    result = call("run", *arguments, "--set=training.epochs=1", "--device=cpu")
    assert result.exit_code == 0, result.output
    (record,) = records_in(home / "runs")
    assert rb.run_folder(record, "~/runs") == rb.run_folder(record, home / "runs")
    assert (home / "cache").is_dir()
    assert len(rb.records("~/runs")) > 0
    (written, *_) = rb.write_leaderboards("~/runs", "~/tables")
    assert written.is_relative_to(home / "tables")
    assert list(elsewhere.iterdir()) == []
    monkeypatch.setenv("RSCL_DATA_ROOT", "~/archives")
    assert str(home / "archives") in refused("data", "verify", "--scenario", "scene4")
    assert str(home / "a") in refused("data", "verify", "--scenario", "scene4", "--data-root=~/a")


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("x" * 5000, "is no usable path (File name too long)"),
        ("~nobody-of-this-name/x", "names the home of an unknown user"),
        ("a\0b", "holds a null byte"),
    ],
)
def test_impossible_paths_are_refused(path: str, sentence: str, tmp_path: Path) -> None:
    given: dict[str, str] = {"data_root": path, "out": path}
    for option, value in given.items():
        with pytest.raises(SpecError) as caught:
            rb.run(TOY, "finetune", verbose=False, **{"out": str(tmp_path), option: value})  # type: ignore[arg-type]
        assert sentence in str(caught.value)
    for load in (load_scenario, load_method):
        with pytest.raises(SpecError) as caught:
            load(f"{path}.toml")
        assert sentence in str(caught.value)
    recipe = tmp_path / "mine.toml"
    text = RECIPE.replace("own.py:L2Previous", f"{path}.py:Mine".replace("\0", "\\u0000"))
    recipe.write_text(text, encoding="utf-8")
    with pytest.raises(SpecError) as caught:
        load_method(str(recipe))
    assert sentence in str(caught.value)


def test_code_is_announced_before_it_runs(tmp_path: Path) -> None:
    scenario, recipe = project(tmp_path / "a")
    (tmp_path / "a" / "own.py").write_text("import sys\nsys.exit(0)\n", encoding="utf-8")
    commands: list[list[str | Path]] = [
        ["show", recipe],
        ["run", "--scenario", scenario, "--method", recipe],
    ]
    for command in commands:
        sentence = refused(*command)
        assert "ends the program with sys.exit(0) while it is imported" in sentence
        result = call(*command)
        notes = sorted(set(result.stderr.splitlines()) - set(error_lines(result)))
        assert f"note: this command runs the code of {tmp_path / 'a' / 'own.py'}" in notes
