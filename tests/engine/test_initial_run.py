"""Runs whose encoder starts from a file."""

import shutil
from pathlib import Path

import pytest
import torch
from helpers.archives import sketches
from helpers.cli import ONE_EPOCH, call, records_in, refused
from helpers.paths import TOY
from helpers.runs import Quiet, Run, Runner
from helpers.small import SMALL
from safetensors.torch import load_file, save_file

import rscl_bench as rb
from rscl_bench import registry
from rscl_bench.engine.build import build_objective
from rscl_bench.engine.extending import extended_spec
from rscl_bench.engine.initial import initial_weights
from rscl_bench.engine.parent import read_parent
from rscl_bench.engine.prepare import open_run
from rscl_bench.engine.run import execute
from rscl_bench.errors import SpecError
from rscl_bench.leaderboards.keys import row_key
from rscl_bench.leaderboards.rows import encoder_key
from rscl_bench.leaderboards.run_table import run_table
from rscl_bench.models.weights_file import digest_of
from rscl_bench.progress import silent
from rscl_bench.results.agreement import Filed, disagreements
from rscl_bench.results.folders import run_folder
from rscl_bench.results.validation import verdicts
from rscl_bench.spec import RunSpec
from rscl_bench.testing.tiny import differing, recipe, state_of, tiny_spec


@pytest.fixture(scope="module")
def runs(toy_data: Path, toy_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(toy_data, toy_cache, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def first(runs: Runner) -> Run:
    """A run from random weights, whose encoder others start from."""
    return runs("finetune", 1)


def started(spec: RunSpec, path: Path) -> RunSpec:
    return spec.model_copy(update={"init": initial_weights(path)})


@pytest.fixture(scope="module")
def second(runs: Runner, first: Run) -> Run:
    """A run that starts from the encoder of the first."""
    spec = started(runs.spec(), first.folder / "encoder.safetensors")
    opened, reporter = runs.open(spec), Quiet()
    folder = run_folder(runs.out, opened.identity)
    return Run(opened, folder, execute(opened, folder, reporter), reporter)


def test_the_untrained_row_is_the_loaded_encoder(first: Run, second: Run) -> None:
    assert second.record.scores[0] == first.record.scores[-1]
    assert second.record.scores[0] != first.record.scores[0]
    assert run_table(second.record)[0].name == "initial-encoder"
    assert run_table(first.record)[0].name == "random-encoder"


def test_digest_is_in_the_identity_and_the_name_in_the_record(first: Run, second: Run) -> None:
    path = first.folder / "encoder.safetensors"
    identity = second.record.identity
    assert identity.init == digest_of(path)
    assert second.record.init is not None
    assert second.record.init.model_dump() == {
        "file": "encoder.safetensors",
        "adapted": (),
        "left_out": (),
    }
    assert "init" not in first.record.identity.model_dump(mode="json")
    assert "init" not in first.record.model_dump(mode="json")
    assert str(path.parent) not in (second.folder / "record.json").read_text(encoding="utf-8")
    paths = [run.folder / "record.json" for run in (first, second)]
    assert {verdict.state for verdict in verdicts(paths).values()} == {"valid"}


def test_leaderboards_tell_what_a_run_starts_from(first: Run, second: Run, runs: Runner) -> None:
    digits = str(second.record.identity.init)[:8]
    assert row_key(second.record).method == f"finetune+init:{digits}"
    assert encoder_key(second.record).method == f"initial-encoder:{digits}"
    assert encoder_key(first.record).method == "random-encoder"
    # Two seeds from one file have equal scores before training.
    spec = started(runs.spec(seed=2), first.folder / "encoder.safetensors")
    opened = runs.open(spec)
    folder = run_folder(runs.out, opened.identity)
    other = execute(opened, folder, Quiet())
    assert other.scores[0] == second.record.scores[0]
    filed = [Filed(Path("a"), second.record), Filed(Path("b"), other)]
    probes = tuple(p.model_copy(update={"test_tiles": 10_000}) for p in other.probes)
    filed = [Filed(f.path, f.record.model_copy(update={"probes": probes})) for f in filed]
    assert not list(disagreements(filed))


@pytest.mark.parametrize("name", registry.entries("objectives"))
def test_teachers_start_from_the_file(name: str, tmp_path: Path) -> None:
    spec = tiny_spec(recipe({"name": name, **SMALL.get(name, {})}))
    path = tmp_path / "weights.safetensors"
    device = torch.device("cpu")
    donor = build_objective(spec.model_copy(update={"seed": 7}), device).encoder
    save_file({n: v.contiguous() for n, v in state_of(donor).items()}, path)
    built = build_objective(started(spec, path), device)
    assert not differing(state_of(built.encoder), state_of(donor))
    assert differing(state_of(build_objective(spec, device).encoder), state_of(donor))
    if built.momentum:
        assert not differing(state_of(built.teacher), state_of(donor))


def test_a_run_from_a_file_is_extended_without_the_file(
    first: Run, second: Run, runs: Runner, tmp_path: Path
) -> None:
    path = tmp_path / "weights.safetensors"
    shutil.copy(first.folder / "encoder.safetensors", path)
    scenario = second.opened.spec.scenario
    short = runs.open(started(runs.spec(tasks=scenario.tasks[:2]), path))
    execute(short, tmp_path / "short", Quiet())
    path.unlink()
    parent = read_parent(tmp_path / "short")
    spec = extended_spec(parent, scenario, None)
    opened = open_run(spec, sketches(runs.data, runs.cache), "cpu", silent, parent)
    record = execute(opened, tmp_path / "longer", Quiet())
    assert record.identity.init == second.record.identity.init
    assert record.init == second.record.init.model_copy(  # type: ignore[union-attr]
        update={"file": "weights.safetensors"}
    )
    assert record.scores == second.record.scores
    assert not differing(second.encoder, load_file(tmp_path / "longer" / "encoder.safetensors"))


def test_file_that_does_not_fit_ends_the_run_before_packing(
    runs: Runner, first: Run, tmp_path: Path
) -> None:
    weights = load_file(first.folder / "encoder.safetensors")
    weights["masked_vit.vit.norm.weight"] = torch.ones(25)
    save_file(weights, tmp_path / "other.safetensors")
    spec = started(runs.spec(), tmp_path / "other.safetensors")
    with pytest.raises(SpecError, match=r"1 of another shape \(norm\.weight is 25 and not 24\)"):
        open_run(spec, sketches(runs.data, tmp_path / "cache"), "cpu", silent)
    assert not (tmp_path / "cache").exists()


def test_command_line_starts_runs_sweeps_and_grids_from_a_file(
    first: Run, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    path = first.folder / "encoder.safetensors"
    shared = ("--scenario", TOY, "--data-root", toy_data, "--init", path, *ONE_EPOCH)
    result = call("run", *shared, "--method", "finetune", "--out", tmp_path / "run")
    assert "The encoder starts from encoder.safetensors." in result.stdout
    assert "initial-encoder" in result.stdout
    (record,) = records_in(tmp_path / "run")
    assert record.identity.init == digest_of(path)
    message = refused("run", *shared[:4], "--init", tmp_path / "no.pth", "--method", "finetune")
    assert message.endswith("no.pth cannot be read (No such file or directory); check the path.")
    runs = rb.sweep(
        TOY,
        "finetune",
        seeds=[0],
        set={"training.epochs": 1},
        data_root=toy_data,
        out=tmp_path / "sweep",
        device="cpu",
        init=path,
        verbose=False,
    )
    assert [run.record is not None and run.record.scores for run in runs] == [record.scores]
    choice = rb.tune(
        TOY,
        "finetune",
        {"training.learning_rate": [1e-3]},
        set={"training.epochs": 1},
        data_root=toy_data,
        out=tmp_path / "tune",
        device="cpu",
        init=path,
        verbose=False,
    )
    assert len(choice.settings) == 1
    (tuned,) = records_in(tmp_path / "tune")
    assert tuned.identity.init == record.identity.init
