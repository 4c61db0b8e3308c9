"""Whole runs on a stream of four sensors whose bands differ."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.sensor_streams import declaration, write_archives, write_scenario
from safetensors.torch import load_file

import rscl_bench as rb
from rscl_bench.errors import ArtefactError, SpecError
from rscl_bench.models.encoder_file import read_encoder
from rscl_bench.results.schema import RunRecord
from rscl_bench.testing.tiny import differing

DOMAINS = ["colour", "thermal", "sentinel2", "landsat"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archives(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module", params=["union", "spectral"])
def ran(
    request: pytest.FixtureRequest, data: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunRecord, Path]:
    """Return the record and the encoder's file of a run with data and model mixup."""
    folder = tmp_path_factory.mktemp(request.param)
    scenario = write_scenario(folder, declaration(request.param))
    record = rb.run(
        scenario, "cosmae", data_root=data, out=folder / "out", device="cpu", verbose=False
    )
    return record, rb.run_folder(record, folder / "out") / "encoder.safetensors"


def test_every_domain_is_probed_after_each_task(ran: tuple[RunRecord, Path]) -> None:
    record, _ = ran
    assert record.identity.protocol["bands"] in ("union", "spectral")
    assert len(record.scores) == 5
    for row in record.scores:
        assert list(row) == DOMAINS
        assert all(score.test.micro is not None for score in row.values())
    assert record.flops is not None
    assert record.flops.with_gradient > 0
    added = record.flops.strategies_without_gradient
    assert added is not None
    assert added > 0  # the mixed teacher


def test_the_file_of_an_encoder_holds_its_bands(ran: tuple[RunRecord, Path]) -> None:
    record, path = ran
    encoder = rb.load_encoder(path)
    described = encoder.description
    assert described.band_mode == record.identity.protocol["bands"]
    assert described.channels is not None
    names = [band.name for band in described.channels]
    assert names[:4] == ["red", "green", "blue", "lwir"]
    for given in described.inputs:
        assert given.places is not None
        assert [names[place] for place in given.places] == list(given.bands)
    thermal = described.channels[3]
    assert (thermal.kind, thermal.wavelength_nm, thermal.width_nm) == ("thermal", 11000, 3000)


@pytest.mark.parametrize("domain", DOMAINS)
def test_images_of_each_domain_have_features(ran: tuple[RunRecord, Path], domain: str) -> None:
    """The features are those of an ordinary model of that domain's bands."""
    encoder = rb.load_encoder(ran[1])
    given = encoder.description.input_of(domain)
    rng = np.random.default_rng(0)
    shape = (3, len(given.bands), 16, 16)
    images = rng.integers(0, 200, shape).astype(np.float32)
    features = encoder.features(images, task=domain)
    assert features.shape == (3, 24)
    assert torch.isfinite(features).all()
    assert features.std(dim=0).any()
    mean, std = (torch.tensor(values)[:, None, None] for values in (given.mean, given.std))
    views = (torch.from_numpy(images) - mean) / std
    plain: Any = encoder.to_timm(domain)
    expected = plain.forward_features(views)[:, 1:].mean(dim=1)
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-5)
    with pytest.raises(SpecError, match=rf"\[B, {len(given.bands)}, H, W\] with the bands"):
        encoder.features(images[:, :0], task=domain)


def test_a_file_without_the_weights_of_a_band_is_refused(
    ran: tuple[RunRecord, Path], tmp_path: Path
) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    with safe_open(ran[1], framework="pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    lost = next(name for name in tensors if ".by_band." in name)
    del tensors[lost]
    save_file(tensors, tmp_path / "encoder.safetensors", metadata)
    with pytest.raises(ArtefactError, match="does not hold the weights"):
        read_encoder(tmp_path / "encoder.safetensors")


@pytest.mark.parametrize("mode", ["union", "spectral"])
def test_a_stream_goes_on_with_an_archive_of_new_bands(
    mode: str, data: Path, tmp_path: Path
) -> None:
    """Two tasks, extended by twelve bands, are the stream of three tasks in one go."""
    folders = []
    for tasks in (2, 3):
        raw = declaration(mode)
        raw["tasks"], raw["probes"] = raw["tasks"][:tasks], raw["probes"][:tasks]
        folders.append(tmp_path / str(tasks))
        folders[-1].mkdir()
        write_scenario(folders[-1], raw)
    given: dict[str, Any] = {"data_root": data, "device": "cpu", "verbose": False}
    short, long = (folder / "scenario.toml" for folder in folders)
    first = rb.run(short, "ewc", out=tmp_path / "first", keep_state=True, **given)
    run = rb.run_folder(first, tmp_path / "first")
    extended = rb.extend(run, scenario=long, out=tmp_path / "extended", **given)
    one_go = rb.run(long, "ewc", out=tmp_path / "one-go", **given)
    assert [task.final_loss for task in extended.tasks] == [t.final_loss for t in one_go.tasks]
    assert extended.scores[-1] == one_go.scores[-1]
    files = [
        rb.run_folder(record, tmp_path / out) / "encoder.safetensors"
        for record, out in ((extended, "extended"), (one_go, "one-go"))
    ]
    ended, whole = (load_file(path) for path in files)
    assert not differing(ended, whole)
