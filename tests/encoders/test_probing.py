"""Any encoder on the probes of a scenario."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from helpers.cli import call, refused
from helpers.encoders import described, given, three_bands, write_made_up
from helpers.paths import TOY
from safetensors.numpy import load_file
from safetensors.torch import save_file

import rscl_bench as rb
from rscl_bench.encoders.encoder_scores import EncoderScores
from rscl_bench.errors import SpecError
from rscl_bench.models.initial_weights import load_initial
from rscl_bench.models.timm_encoder import TimmEncoder
from rscl_bench.models.weights_file import digest_of
from rscl_bench.results.files import find_records
from rscl_bench.results.schema import RunRecord
from rscl_bench.testing.tiny import state_of

TINY_VIT = {"patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


@pytest.fixture(scope="module", autouse=True)
def data(tmp_path_factory: pytest.TempPathFactory, toy_data: Path) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("RSCL_DATA_ROOT", str(toy_data))
        yield


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def record(out: Path) -> RunRecord:
    return rb.run(
        TOY,
        "finetune",
        set={"training.epochs": 1, "training.warmup_epochs": 0.5},
        out=out,
        device="cpu",
        threads=1,
        keep_encoders=True,
        verbose=False,
    )


def test_scores_of_a_run_are_those_of_its_record_to_the_last_bit(
    record: RunRecord, out: Path, tmp_path: Path
) -> None:
    folder = rb.run_folder(record, out)
    path = tmp_path / "scores.json"
    result = call("probe", folder / "encoder.safetensors", TOY, "--threads", "1", "--out", path)
    assert result.exit_code == 0, result.output
    assert "These scores equal those of the run's record." in result.stdout
    raw = json.loads(path.read_text(encoding="utf-8"))
    probed = EncoderScores.model_validate_json(path.read_text(encoding="utf-8"))
    assert probed.scores == record.scores[-1]
    assert probed.encoder.digest == record.encoder_digest
    assert probed.equals_record
    images = load_file(folder / "record.safetensors")
    for role in ("val", "test"):
        own = raw["probes"][0]["images"][role]
        assert np.array_equal(np.array(own["scores"]), images[f"scores.3.toy.{role}"])
        assert np.array_equal(np.array(own["labels"]), images[f"labels.toy.{role}"])


def test_encoders_after_a_task_have_the_scores_of_that_row(record: RunRecord, out: Path) -> None:
    folder = rb.run_folder(record, out) / "encoders"
    for number, path in enumerate(sorted(folder.iterdir()), start=1):
        probed = rb.probe(path, TOY, device="cpu", threads=1, verbose=False)
        assert probed.scores == record.scores[number]
        assert probed.recorded == record.scores[number]
    assert number == 3


def test_file_of_scores_is_taken_for_no_record(
    record: RunRecord, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    encoder = rb.run_folder(record, out) / "encoder.safetensors"
    assert call("probe", encoder, TOY).exit_code == 0
    (written,) = tmp_path.iterdir()
    assert written.name == f"probe-toy-sketch-tiny-{str(record.encoder_digest)[:8]}.json"
    assert find_records([tmp_path]) == ([], [written])
    assert "is no run record" in refused("leaderboard", "build", written)


def test_a_record_of_other_settings_is_not_compared(record: RunRecord, out: Path) -> None:
    encoder = rb.run_folder(record, out) / "encoder.safetensors"
    changed = rb.probe(
        encoder, TOY, set={"views.normalisation": "range"}, device="cpu", verbose=False
    )
    assert (changed.recorded, changed.equals_record) == (None, None)
    assert changed.scores != record.scores[-1]


def test_weights_of_timm_in_the_backbone_are_those_of_a_run_from_them(tmp_path: Path) -> None:
    """The scores are those of the first row of a run with ``--init``."""
    other = timm.models.VisionTransformer(
        img_size=16, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=5
    )
    path = tmp_path / "other.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in other.state_dict().items()}, path)
    probed = rb.probe(path, TOY, device="cpu", threads=1, verbose=False)
    assert probed.encoder.left_out == ("head.bias", "head.weight")
    assert (probed.encoder.description, probed.recorded) == (None, None)
    started = rb.run(
        TOY,
        "finetune",
        set={"training.epochs": 1},
        init=path,
        out=tmp_path / "runs",
        device="cpu",
        threads=1,
        verbose=False,
    )
    assert probed.scores == started.scores[0]


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224"])
def test_a_model_of_timm_gives_its_own_features(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = timm.create_model(name, num_classes=7)
    path = tmp_path / "weights.safetensors"
    save_file({n: tensor.contiguous() for n, tensor in plain.state_dict().items()}, path)
    size = 224 if "vit" in name else 64
    encoder = TimmEncoder(name, size, 3)
    load_initial(encoder, path, digest_of(path))
    plain.reset_classifier(0)
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        features = encoder.eval().probed(encoder(images))
        assert features.shape == (2, encoder.feature_dim)
        assert torch.equal(features, plain.eval()(images))
    with pytest.raises(SpecError, match="no objective can train it"):
        encoder.grid(features)


def test_a_model_of_timm_is_probed_on_the_command_line(tmp_path: Path) -> None:
    plain = timm.create_model("resnet18", num_classes=0)
    path = tmp_path / "weights.safetensors"
    save_file({n: tensor.contiguous() for n, tensor in plain.state_dict().items()}, path)
    shared = ("probe", path, TOY, "--set", "image_size=32", "--out", tmp_path / "scores.json")
    result = call(*shared, "--timm", "resnet18")
    assert result.exit_code == 0, result.output
    probed = EncoderScores.model_validate_json((tmp_path / "scores.json").read_text())
    assert probed.encoder.timm == "resnet18"
    assert probed.encoder.backbone is None
    assert probed.scores["toy"].test.micro is not None
    assert "did you mean 'resnet18'" in refused(*shared, "--timm", "resnet_18")
    assert "do not fit the encoder" in refused(*shared, "--timm", "resnet34")
    assert "do not fit the encoder" in refused(*shared)
    assert "--set objective.mask_ratio is of a method" in refused(
        *shared, "--set", "objective.mask_ratio=0.5"
    )


def test_an_encoder_with_other_bands_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    write_made_up(path, described(given("two", 1.0)))
    assert refused("probe", path, TOY) == (
        "Probe 'toy' has 3 bands (red, green, blue), and the encoder takes 2; choose a scenario "
        "with other probes."
    )
    assert "leave --timm resnet18 out" in refused("probe", path, TOY, "--timm", "resnet18")


def test_an_encoder_keeps_its_own_image_size(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    backbone = {"name": "vit", **TINY_VIT}
    encoder = write_made_up(path, described(three_bands("only"), image_size=24, backbone=backbone))
    before = state_of(encoder)
    probed = rb.probe(path, TOY, device="cpu", verbose=False)
    assert probed.protocol["image_size"] == 24
    assert all(torch.equal(value, before[name]) for name, value in state_of(encoder).items())


def test_files_that_hold_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.safetensors").write_bytes(b"none")
    assert "is damaged or no safetensors file" in refused(
        "probe", tmp_path / "weights.safetensors", TOY
    )
    assert "cannot be read" in refused("probe", tmp_path / "missing.safetensors", TOY)
    assert "is no file of weights by its name" in refused("probe", tmp_path / "a.txt", TOY)
