"""The file of a trained encoder."""

import json
import os
from pathlib import Path

import pytest
import torch
from helpers.disk import file_size_limit
from helpers.encoders import described, given
from safetensors.torch import load, save_file

from rscl_bench.errors import ArtefactError, RsclError, SpecError
from rscl_bench.models.build import build_encoder
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.encoder_file import EncoderInput, read_encoder, write_encoder
from rscl_bench.spec import Component
from rscl_bench.testing.tiny import TINY_BACKBONE, differing, state_of


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "encoder.safetensors"


@pytest.fixture
def encoder(path: Path) -> Encoder:
    encoder = build_encoder(Component.model_validate(TINY_BACKBONE), 16, 2)
    write_encoder(path, encoder, described())
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
        write_encoder(path, encoder, described(seed=4))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_reading_gives_back_what_was_written(path: Path, encoder: Encoder) -> None:
    before = torch.random.get_rng_state()
    loaded, description = read_encoder(path)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert description == described()
    assert not differing(state_of(loaded), state_of(encoder))
    assert not loaded.training
    images = torch.rand(2, 2, 16, 16)
    assert torch.equal(loaded(images), encoder.eval()(images))


def test_equal_encoders_make_equal_bytes(path: Path, encoder: Encoder, tmp_path: Path) -> None:
    digests = {write_encoder(tmp_path / name, encoder, described()) for name in ("a", "b")}
    assert len(digests) == 1
    assert path.read_bytes() == (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_default_input_is_the_last_tasks() -> None:
    assert described().input_of() == given("second", 1)
    assert described().input_of("first") == given("first", 0.1)
    with pytest.raises(SpecError, match=r"'frist'.*first"):
        described().input_of("frist")


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
    text = described().model_dump_json()
    save_file({"weight": torch.ones(2)}, path, {"rscl_bench": text})
    refused(path, "does not hold the weights of its backbone 'vit'")
    path.unlink()
    refused(path, "cannot be read")
    path.mkdir()
    refused(path, "cannot be read|is damaged")


def test_values_of_an_input_are_one_per_band() -> None:
    with pytest.raises(ValueError, match="one value per band"):
        EncoderInput(task="a", bands=("red",), unit="u", scale=1, mean=(1, 2), std=(1, 2))


def test_spectrum_has_the_bands_in_their_order() -> None:
    with pytest.raises(ValueError, match="spectrum must have the bands, in their order"):
        given("a", 1, bands=("nir", "red"))


def test_a_description_is_whole() -> None:
    """Format 2 says how to pool, after which task, and on which archives; format 1 did not."""
    old = given("only", 1, dtype=None, spectrum=None, archive=None)
    whole = described()
    for change, sentence in (
        ({"pooling": "token"}, "pooling must be that of probed_feature"),
        ({"task": None}, "task must be that of the last input"),
        ({"task": whole.after(1).task}, "task must be that of the last input"),
        ({"inputs": (old, given("second", 1))}, "inputs must have dtype, spectrum and archive"),
    ):
        with pytest.raises(ValueError, match=sentence):
            described(**change)
    first = whole.after(1)
    assert first.task is not None
    assert (first.task.name, first.task.number, first.task.of) == ("first", 1, 2)
    assert (first.inputs, first.bands) == (whole.inputs[:1], ("red", "nir"))
    assert described(probed_feature="cls").pooling == "token"


def test_a_file_of_format_1_is_read(path: Path, encoder: Encoder) -> None:
    """The text is that of version 0.3.0, letter by letter."""
    text = (
        '{"format":1,"rscl_bench":"0.3.0","run":"0123456789abcdef","scenario":"two",'
        '"scenario_version":"1","edition":"real","protocol":"tiny","method":"finetune","seed":3,'
        f'"backbone":{json.dumps(TINY_BACKBONE)},"image_size":16,"bands":["red","nir"],'
        '"inputs":[{"task":"first","bands":["red","nir"],"unit":"reflectance","scale":10000.0,'
        '"mean":[0.1,2.0],"std":[3.0,4.0]}]}'
    )
    save_file(state_of(encoder), path, {"rscl_bench": text})
    loaded, description = read_encoder(path)
    assert not differing(state_of(loaded), state_of(encoder))
    assert (description.pooling, description.task) == (None, None)
    assert description.inputs[0].pixel_type == "uint16"
    assert json.loads(description.model_dump_json()) == json.loads(text)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640)])
def test_mode_of_the_file_follows_the_umask(
    umask: int, mode: int, path: Path, encoder: Encoder
) -> None:
    before = os.umask(umask)
    try:
        write_encoder(path, encoder, described())
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == mode
