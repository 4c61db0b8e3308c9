"""The Python interface, as a notebook uses it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.paths import TOY

import rscl_bench as rb
from rscl_bench.errors import ArchiveError, ArtefactError, SpecError
from rscl_bench.probes.encoding import EvalContext, TileSubset, encode_tiles
from rscl_bench.results.schema import RunRecord
from rscl_bench.spec import Views
from rscl_bench.views.crops import Normalisation
from rscl_bench.views.view import PixelScaling

SHORT = {"training.epochs": 1}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RSCL_DATA_ROOT", raising=False)
        yield tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def out(cache: Path) -> Path:
    return cache


@pytest.fixture(scope="module")
def record(out: Path) -> RunRecord:
    return rb.run(TOY, "cosmae", set=SHORT, out=out, device="cpu", verbose=False)


def test_importing_the_package_imports_nothing_heavy() -> None:
    script = (
        "import sys, rscl_bench; rscl_bench.run; rscl_bench.load_encoder\n"
        "print([n for n in ('torch', 'numpy', 'pandas', 'avalanche') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_no_submodule_hides_a_function() -> None:
    """No submodule hides a function of the same name, even after the import of the submodule."""
    from rscl_bench import api

    for name in rb.__all__:
        if name != "__version__":
            assert getattr(rb, name) is getattr(api, name), name
    with pytest.raises(AttributeError, match="has no attribute 'runn'"):
        _ = rb.runn


def test_a_run_leaves_the_record_that_is_returned(
    record: RunRecord, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert record.identity.overrides == SHORT
    path = rb.run_folder(record, out) / "record.json"
    assert rb.read_record(path) == record
    before = path.stat().st_mtime_ns
    assert rb.run(TOY, "cosmae", set=SHORT, out=out, device="cpu") == record
    assert "This run is recorded" in capsys.readouterr().out
    assert path.stat().st_mtime_ns == before


def test_loaded_specs_serve_as_well_as_names(record: RunRecord, out: Path) -> None:
    scenario, method = rb.load_scenario(TOY), rb.load_method("cosmae")
    again = rb.run(scenario, method, set=SHORT, out=out, device="cpu", verbose=False)
    assert again.id == record.id


def test_quiet_and_verbose(out: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rb.open_tiles(TOY, verbose=False)
    assert capsys.readouterr().out == ""
    rb.open_tiles(TOY)
    assert capsys.readouterr().out.startswith("Sketch edition of toy")


def test_real_archives_of_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RSCL_DATA_ROOT", str(tmp_path))
    with pytest.raises(ArchiveError, match=str(tmp_path)):
        rb.open_tiles("scene4", verbose=False)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"training.epoch": 1}, r"did you mean 'training\.epochs'\?"),
        ({"training.epochs": "many"}, "Input should be a valid integer"),
        ({"objective.mask_ratio": 1.5}, "Input should be less than 1"),
        ({"training.learning_rate": float("nan")}, "training.learning_rate"),
        ({"training.epochs": object()}, "training.epochs"),
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object], sentence: str, out: Path) -> None:
    with pytest.raises(SpecError, match=sentence):
        rb.run(TOY, "cosmae", set=settings, out=out, device="cpu", verbose=False)


# Encoders


def test_features_of_a_loaded_encoder_are_those_of_probing(record: RunRecord, out: Path) -> None:
    encoder = rb.load_encoder(rb.run_folder(record, out) / "encoder.safetensors")
    assert not any(module.training for module in encoder.modules())
    assert (encoder.bands, encoder.image_size) == (("red", "green", "blue"), 16)
    store = rb.open_tiles(TOY, verbose=False)["probe toy test"]
    images = np.ascontiguousarray(store.tiles[:7].transpose(0, 3, 1, 2))
    own = Normalisation(torch.tensor([1.0, 2, 3]), torch.tensor([40.0, 50, 60]))
    cpu = torch.device("cpu")
    scaling = PixelScaling(own, 255.0, (0, 1, 2))
    context = EvalContext(16, Views(), scaling, cpu, lambda: torch.autocast("cpu", enabled=False))
    expected = encode_tiles(encoder.encoder, TileSubset(store, np.arange(7)), context)
    assert np.array_equal(encoder.features(images, normalisation=own).numpy(), expected)
    assert np.array_equal(encoder.features(torch.from_numpy(images), normalisation=own), expected)


def test_a_task_normalises_features(record: RunRecord, out: Path) -> None:
    encoder = rb.load_encoder(rb.run_folder(record, out) / "encoder.safetensors")
    stores = rb.open_tiles(TOY, verbose=False)
    images = stores["task first"].tiles[:3].transpose(0, 3, 1, 2)
    last, first = encoder.features(images), encoder.features(images, task="first")
    assert torch.equal(last, encoder.features(images, task="third"))
    assert not torch.equal(last, first)
    own = Normalisation(
        torch.from_numpy(stores["task first"].mean).float(),
        torch.from_numpy(stores["task first"].std).float(),
    )
    assert torch.equal(first, encoder.features(images, normalisation=own))
    with pytest.raises(SpecError, match="Unknown task of this encoder 'fifth'"):
        encoder.features(images, task="fifth")


def test_the_timm_model_has_equal_features(record: RunRecord, out: Path) -> None:
    encoder = rb.load_encoder(rb.run_folder(record, out) / "encoder.safetensors")
    views = torch.randn(5, 3, 16, 16)
    model = encoder.to_timm()
    with torch.inference_mode():
        assert torch.equal(model(views), encoder(views))
    before = encoder(views)
    torch.nn.init.zeros_(next(model.parameters()))
    assert torch.equal(before, encoder(views)), "the model is a copy"


@pytest.mark.parametrize("shape", [(2, 16, 16, 3), (3, 16, 16), (2, 4, 16, 16), (0, 3, 16, 16)])
def test_images_of_another_shape_are_refused(
    shape: tuple[int, ...], record: RunRecord, out: Path
) -> None:
    encoder = rb.load_encoder(rb.run_folder(record, out) / "encoder.safetensors")
    with pytest.raises(SpecError, match=r"this encoder takes \[B, 3, H, W\]"):
        encoder.features(np.zeros(shape, np.uint8))


def test_a_file_that_is_no_encoder_is_refused(record: RunRecord, out: Path) -> None:
    with pytest.raises(ArtefactError, match=r"record\.safetensors holds no encoder"):
        rb.load_encoder(rb.run_folder(record, out) / "record.safetensors")


# Many runs


def test_records_are_a_row_per_run_task_probe_split_and_score(record: RunRecord, out: Path) -> None:
    frame = rb.records(rb.run_folder(record, out))
    assert len(frame) == 4 * 2 * 2  # random encoder and three tasks; test and val; micro and macro
    last = frame.query("task == 3 and split == 'test' and score == 'micro_map'")
    assert last["value"].tolist() == [record.scores[-1]["toy"].test.micro]
    assert set(frame["run_id"]) == {record.id}


def test_sweep_and_leaderboard(record: RunRecord, out: Path) -> None:
    runs = rb.sweep(
        TOY, ["cosmae", "finetune"], seeds=[0], set=SHORT, out=out, device="cpu", verbose=False
    )
    assert [(run.label, run.state) for run in runs] == [
        ("cosmae", "recorded before"),
        ("finetune", "done"),
    ]
    (table,) = rb.leaderboard([run.record_path for run in runs]).values()
    assert next(iter(rb.leaderboard(str(out)).values())).shape == table.shape
    assert {"cosmae", "finetune"} <= set(table["method"])
    written = rb.write_leaderboards([out], out / "leaderboards")
    assert [path.name for path in written if path.suffix == ".md"] == ["leaderboard.md"]
    assert {verdict.state for verdict in rb.validate([out]).values()} == {"valid"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"methods": []}, "--methods names nothing"),
        ({"methods": "cosmae", "seeds": []}, "--seeds names nothing"),
        ({"methods": "cosmae", "seeds": [-1]}, "The seed is -1"),
        ({"methods": ["cosmae", "cosmae"]}, "'cosmae' is in --methods twice"),
    ],
)
def test_sweeps_of_nothing_are_refused(given: dict[str, Any], sentence: str, out: Path) -> None:
    with pytest.raises(SpecError, match=sentence):
        rb.sweep(TOY, out=out, verbose=False, **given)


def test_grids_of_nothing_are_refused(out: Path) -> None:
    grids: list[dict[str, list[float]]] = [{}, {"strategies.model-mixup.beta": []}]
    for grid in grids:
        with pytest.raises(SpecError, match="names nothing"):
            rb.tune(TOY, "cosmae", grid, out=out, verbose=False)


def test_tune_chooses_on_the_validation_split(out: Path) -> None:
    grid = {"strategies.model-mixup.beta": [0.1, 0.9]}
    given = {"set": SHORT, "out": out, "device": "cpu", "verbose": False}
    tuning = rb.tune(TOY, "cosmae-model-mixup", grid, **given)  # type: ignore[arg-type]
    assert tuning.choice["strategies.model-mixup.beta"] in (0.1, 0.9)
    scores = {point.values["strategies.model-mixup.beta"]: point.score for point in tuning.settings}
    assert scores[tuning.choice["strategies.model-mixup.beta"]] == max(scores.values())
    assert rb.tuning_path(tuning, out).is_file()


def test_components_are_listed() -> None:
    assert "mae" in rb.list_components("objectives")
    assert rb.list_components("methods")["cosmae"]
    with pytest.raises(SpecError, match="did you mean 'probes'"):
        rb.list_components("probe")
