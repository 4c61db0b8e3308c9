"""The file of a trained encoder."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.disk import file_size_limit
from safetensors.torch import load, save_file

from rscl_bench.errors import ArtefactError, RsclError, SpecError
from rscl_bench.models.build import build_encoder
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.encoder_file import (
    EncoderDescription,
    EncoderInput,
    read_encoder,
    write_encoder,
)
from rscl_bench.spec import Component
from rscl_bench.testing.tiny import TINY_BACKBONE, differing, state_of


def given(task: str, mean: float) -> EncoderInput:
    return EncoderInput(
        task=task, bands=("red", "nir"), unit="reflectance", scale=1e4, mean=(mean, 2), std=(3, 4)
    )


def description(**changes: Any) -> EncoderDescription:
    fields: dict[str, Any] = {
        "rscl_bench": "1.0",
        "run": "0123456789abcdef",
        "scenario": "two",
        "scenario_version": "1",
        "edition": "real",
        "protocol": "tiny",
        "method": "finetune",
        "seed": 3,
        "backbone": TINY_BACKBONE,
        "image_size": 16,
        "bands": ("red", "nir"),
        "inputs": (given("first", 0.1), given("second", 1)),
    }
    return EncoderDescription(**{**fields, **changes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "encoder.safetensors"


@pytest.fixture
def encoder(path: Path) -> Encoder:
    encoder = build_encoder(Component.model_validate(TINY_BACKBONE), 16, 2)
    write_encoder(path, encoder, description())
    return encoder


def test_full_disk_keeps_the_earlier_encoder_and_names_path_and_bytes(
    path: Path, encoder: Encoder
) -> None:
    before = path.read_bytes()
    with (
        file_size_limit(len(before) // 2),
        pytest.raises(
            ArtefactError, match=rf"{path.name} of {len(before)} bytes cannot be written"
        ),
    ):
        write_encoder(path, encoder, description(seed=4))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_reading_gives_back_what_was_written(path: Path, encoder: Encoder) -> None:
    before = torch.random.get_rng_state()
    loaded, described = read_encoder(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert described == description()
    assert not differing(state_of(loaded), state_of(encoder))
    assert not loaded.training
    images = torch.rand(2, 2, 16, 16)
    assert torch.equal(loaded(images), encoder.eval()(images))


def test_equal_encoders_make_equal_bytes(path: Path, encoder: Encoder, tmp_path: Path) -> None:
    digests = {write_encoder(tmp_path / name, encoder, description()) for name in ("a", "b")}
    assert len(digests) == 1
    assert path.read_bytes() == (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_default_input_is_the_last_tasks() -> None:
    assert description().input_of() == given("second", 1)
    assert description().input_of("first") == given("first", 0.1)
    with pytest.raises(SpecError, match=r"'frist'.*first"):
        description().input_of("frist")


def refused(path: Path, match: str) -> None:
    with pytest.raises(RsclError, match=match) as caught:
        read_encoder(path)
    assert isinstance(caught.value, ArtefactError)
    assert str(path) in str(caught.value)


@pytest.mark.usefixtures("encoder")
def test_damaged_and_foreign_files_are_refused(path: Path) -> None:
    content = path.read_bytes()
    tensors = load(content)
    path.write_bytes(content[: len(content) // 2])
    refused(path, "is damaged or no safetensors file")
    path.write_bytes(b"weights")
    refused(path, "is damaged or no safetensors file")
    save_file(tensors, path)
    refused(path, "holds no encoder of rscl-bench")
    save_file(tensors, path, {"rscl_bench": json.dumps({"run": "0" * 16})})
    refused(path, "does not describe its encoder .*field 'rscl_bench': Field required")
    text = description().model_dump_json()
    save_file({"weight": torch.ones(2)}, path, {"rscl_bench": text})
    refused(path, "does not hold the weights of its backbone 'vit'")
    path.unlink()
    refused(path, "cannot be read")
    path.mkdir()
    refused(path, "cannot be read|is damaged")


def test_values_of_an_input_are_one_per_band() -> None:
    with pytest.raises(ValueError, match="one value per band"):
        EncoderInput(task="a", bands=("red",), unit="u", scale=1, mean=(1, 2), std=(1, 2))
