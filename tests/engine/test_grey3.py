"""Streams whose bands differ, in the three bands of ``bands = "grey3"``."""

from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.sensor_streams import declaration, write_archives, write_scenario

import rscl_bench as rb
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.encoder_bands import three_of
from rscl_bench.engine.probing import pixel_scaling
from rscl_bench.errors import SpecError
from rscl_bench.resolve import resolve_run
from rscl_bench.testing.tiny import store_of, tiny_spec
from rscl_bench.views.view import View, make_view, whole_view


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_archives(tmp_path_factory.mktemp("data"))


@pytest.mark.parametrize(
    ("bands", "three"),
    [
        (("red", "green", "blue"), ("red", "green", "blue")),
        (("nir", "blue", "green", "red"), ("red", "green", "blue")),
        (("lwir",), ("lwir", "lwir", "lwir")),
        (("nir", "red", "green"), ("nir", "red", "green")),
        (("vv", "vh"), None),
        (("a", "b", "c", "d"), None),
    ],
)
def test_three_bands(bands: tuple[str, ...], three: tuple[str, ...] | None) -> None:
    assert three_of(bands) == three


def views_of(pixels: np.ndarray, bands: tuple[str, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a jittered view and the whole view of tiles under ``grey3``."""
    protocol = tiny_spec().protocol.model_copy(update={"bands": "grey3"})
    scaling = pixel_scaling(store_of(pixels, "t"), bands, protocol)
    tiles, generator = torch.from_numpy(pixels), torch.Generator().manual_seed(0)
    view = View(jitter=1.0, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, grey=0.2)
    made, _ = make_view(tiles, view, 16, 16, protocol.views, scaling, generator, generator)
    return made, whole_view(tiles, 16, scaling)


def test_views_are_those_of_the_three_bands() -> None:
    """Views of many bands are the views of a store that holds red, green and blue alone."""
    rng = np.random.default_rng(0)
    many = rng.integers(0, 255, (5, 20, 20, 4)).astype(np.uint8)
    rgb = np.ascontiguousarray(many[..., [3, 1, 0]])
    for own, alone in zip(
        views_of(many, ("blue", "green", "nir", "red")),
        views_of(rgb, ("red", "green", "blue")),
        strict=True,
    ):
        assert torch.equal(own, alone)


def test_views_of_one_band_are_grey_images() -> None:
    """One band is three equal ones, which hue and saturation leave alone."""
    rng = np.random.default_rng(0)
    one = rng.integers(0, 255, (5, 20, 20, 1)).astype(np.uint8)
    made, whole = views_of(one, ("lwir",))
    made_grey, whole_grey = views_of(np.repeat(one, 3, axis=3), ("red", "green", "blue"))
    assert torch.equal(made, made_grey)
    assert torch.equal(whole, whole_grey)
    torch.testing.assert_close(made[:, 0], made[:, 2], rtol=0, atol=1e-5)


def test_a_stream_of_four_sensors_runs(data: Path, tmp_path: Path) -> None:
    scenario = write_scenario(tmp_path, declaration())
    record = rb.run(
        scenario, "lump", data_root=data, out=tmp_path / "out", device="cpu", verbose=False
    )
    assert record.identity.protocol["bands"] == "grey3"
    for row in record.scores:
        assert set(row) == {"colour", "thermal", "sentinel2", "landsat"}
    encoder = rb.load_encoder(rb.run_folder(record, tmp_path / "out") / "encoder.safetensors")
    assert encoder.bands == ("red", "green", "blue")  # of Landsat, the last task
    assert encoder.description.input_of("thermal").bands == ("lwir",)
    thermal = np.random.default_rng(0).integers(0, 255, (2, 1, 24, 24)).astype(np.uint8)
    assert encoder.features(thermal, task="thermal").shape == (2, 24)
    with pytest.raises(SpecError, match=r"\[B, 1, H, W\] with the bands lwir"):
        encoder.features(np.repeat(thermal, 3, axis=1), task="thermal")


def test_the_mode_is_in_the_identity_only_where_it_is_set() -> None:
    plain = tiny_spec().protocol
    assert "bands" not in plain.model_dump()
    assert plain.model_copy(update={"bands": "grey3"}).model_dump()["bands"] == "grey3"


def test_bands_that_do_not_make_three_are_refused(tmp_path: Path) -> None:
    raw = declaration()
    raw["tasks"][3]["bands"] = ["nir", "swir1"]
    with pytest.raises(
        SpecError, match=r"grey3.*task 'landsat' has 2 \(nir, swir1\).*name one band or three"
    ):
        load_scenario(str(write_scenario(tmp_path, raw)))


def test_the_mode_may_be_set_for_a_run(tmp_path: Path) -> None:
    """Four bands of each task, of which ``--set bands=grey3`` takes red, green and blue."""
    raw = declaration()
    for part in (*raw["tasks"], *raw["probes"]):
        part |= {"dataset": raw["tasks"][3]["dataset"], "bands": ["blue", "green", "red", "nir"]}
    del raw["protocols"]["tiny"]["bands"]
    scenario = load_scenario(str(write_scenario(tmp_path, raw)))
    spec = resolve_run(scenario, load_method("finetune"), overrides={"bands": "grey3"})
    assert spec.protocol.bands == "grey3"
    with pytest.raises(SpecError, match="bands"):
        resolve_run(scenario, load_method("finetune"), overrides={"bands": "grey"})
