"""First convolutions for images that differ in bands, and what they promise."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rscl_bench.encoder_bands import EncoderBands
from rscl_bench.errors import SpecError
from rscl_bench.models.band_convolution import BandConvolution, shown_bands
from rscl_bench.models.band_weights import BandWeights, SpectralWeights, code
from rscl_bench.models.build import build_encoder
from rscl_bench.models.encoder import Encoder
from rscl_bench.randomness import seeded
from rscl_bench.sensors import Band
from rscl_bench.spec import Component
from rscl_bench.testing.four_sensors import COLOUR, LANDSAT, SENTINEL2, THERMAL
from rscl_bench.testing.tiny import TINY_BACKBONE

SENSORS = [COLOUR, THERMAL, SENTINEL2, LANDSAT]
SAR = (Band("vv", 5.5e7, kind="sar"), Band("vh", 5.5e7, kind="sar"))
BACKBONES = [
    TINY_BACKBONE,
    {"name": "swin", "patch_size": 2, "embed_dim": 8, "depths": [1, 1], "num_heads": [1, 2],
     "window_size": 4},
    {"name": "resnet", "variant": "resnet18"},
]  # fmt: skip
modes = pytest.mark.parametrize("mode", ["union", "spectral"])
backbones = pytest.mark.parametrize("backbone", BACKBONES, ids=lambda b: b["name"])


def bands_of(mode: str, *parts: tuple[Band, ...]) -> EncoderBands:
    return EncoderBands.of(mode, parts)  # type: ignore[arg-type]


def all_bands(mode: str) -> EncoderBands:
    return bands_of(mode, *(sensor.bands for sensor in SENSORS), SAR)


def encoder_of(bands: EncoderBands, backbone: dict[str, object] = TINY_BACKBONE) -> Encoder:
    with seeded(0, "test"):
        component = Component.model_validate(backbone)
        return build_encoder(component, 16, len(bands.bands), bands=bands).eval()


def placed(images: Tensor, own: tuple[Band, ...], bands: EncoderBands) -> Tensor:
    """Return images ``[B, C, H, W]`` in the channels of an encoder."""
    views = torch.full((len(images), len(bands.bands), *images.shape[2:]), torch.nan)
    views[:, list(bands.places(own))] = images
    return views


def images_of(own: tuple[Band, ...], count: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, len(own), 16, 16, generator=generator)


@modes
def test_channels_are_the_bands_in_order_of_first_appearance(mode: str) -> None:
    bands = all_bands(mode)
    assert [band.name for band in bands.bands[:4]] == ["red", "green", "blue", "lwir"]
    # Sentinel-2 has the wavelengths of red and green of the camera, but not its widths.
    assert len(bands.bands) == (15 if mode == "union" else 3 + 1 + 12 + 6 + 2)
    longer = bands_of(mode, *(s.bands for s in SENSORS), SAR, (Band("pan", 600.0),))
    assert longer.bands[: len(bands.bands)] == bands.bands


@modes
def test_the_output_is_the_scaled_sum_of_the_kernels_responses(mode: str) -> None:
    """A slow reference: image by image and band by band."""
    bands = all_bands(mode)
    with seeded(0, "test"):
        layer = BandConvolution(nn.Conv2d(1, 6, 3, 2, 1), bands)
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.copy_(torch.randn(6))
    own = [SENTINEL2.bands, THERMAL.bands, SAR]
    views = torch.cat([placed(images_of(b, 1, k), b, bands) for k, b in enumerate(own)])
    kernels = layer.kernels(range(len(bands.bands)))
    for view, result, present in zip(views, layer(views), own, strict=True):
        channels = bands.places(present)
        total = sum(
            F.conv2d(view[None, c, None][0][None], kernels[c, :, None], None, 2, 1)
            for c in channels
        )
        power = 0.5 if mode == "union" else 1.0
        expected = total / len(channels) ** power + layer.bias[:, None, None]
        torch.testing.assert_close(result[None], expected, rtol=1e-5, atol=1e-5)


@modes
@backbones
def test_a_band_that_no_image_has_changes_nothing(mode: str, backbone: dict[str, object]) -> None:
    """Neither the weights of the others nor a feature, to the last bit."""
    few = bands_of(mode, COLOUR.bands, THERMAL.bands)
    many = bands_of(mode, COLOUR.bands, THERMAL.bands, SENTINEL2.bands, SAR)
    small, large = encoder_of(few, backbone), encoder_of(many, backbone)
    weights = large.state_dict()
    for name, value in small.state_dict().items():
        assert torch.equal(value, weights[name]), name
    for own in (COLOUR.bands, THERMAL.bands):
        images = images_of(own)
        assert torch.equal(small(placed(images, own, few)), large(placed(images, own, many)))


@modes
@backbones
def test_an_absent_band_in_a_mixed_batch_changes_nothing(
    mode: str, backbone: dict[str, object]
) -> None:
    bands, encoder = all_bands(mode), encoder_of(all_bands(mode), backbone)
    views = [placed(images_of(s.bands), s.bands, bands) for s in SENSORS]
    together = encoder.pool(encoder(torch.cat(views)))
    alone = torch.cat([encoder.pool(encoder(view)) for view in views])
    assert torch.isfinite(together).all()
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


@modes
@backbones
def test_the_order_of_bands_changes_nothing(mode: str, backbone: dict[str, object]) -> None:
    """Permuted bands with their names and wavelengths: in an image, and in the encoder."""
    own, order = SENTINEL2.bands, torch.randperm(12, generator=torch.Generator().manual_seed(1))
    turned = tuple(own[index] for index in order)
    images = images_of(own)
    straight, reverse = bands_of(mode, own), bands_of(mode, turned)
    encoder, other = encoder_of(straight, backbone), encoder_of(reverse, backbone)
    first = encoder(placed(images, own, straight))
    assert torch.equal(first, encoder(placed(images[:, order], turned, straight)))
    assert torch.equal(first, other(placed(images, own, reverse)))


@modes
def test_a_channel_that_is_forgotten_is_loud(mode: str) -> None:
    """NaN within a band that is there reaches the features."""
    bands, encoder = all_bands(mode), encoder_of(all_bands(mode))
    views = placed(images_of(COLOUR.bands), COLOUR.bands, bands)
    views[0, 0, 5, 5] = torch.nan
    assert encoder(views).isnan().any()


@modes
def test_kernels_of_absent_bands_are_left_alone(mode: str) -> None:
    """Neither gradient nor weight decay reaches what only absent bands use."""
    bands, encoder = all_bands(mode), encoder_of(all_bands(mode))
    before = {name: value.clone() for name, value in encoder.named_parameters()}
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=0.1, weight_decay=0.5, fused=True)
    for _ in range(2):
        optimiser.zero_grad()
        views = placed(images_of(COLOUR.bands), COLOUR.bands, bands)
        torch.autograd.backward(encoder.pool(encoder(views)).square().sum())
        optimiser.step()
    own = {"band_red", "band_green", "band_blue", "basis"}
    for name, value in encoder.named_parameters():
        last = name.rpartition(".")[2]
        if "proj.kernels.by_band" in name or last == "basis":
            assert torch.equal(value, before[name]) == (last not in own), name


def test_a_band_of_one_name_is_one_kernel_in_union() -> None:
    bands = all_bands("union")
    assert bands.places((Band("red", 655.0),)) == bands.places((Band("red", 665.0),)) == (0,)
    spectral = all_bands("spectral")
    assert spectral.places(LANDSAT.bands[2:3]) != spectral.places(COLOUR.bands[:1])
    with pytest.raises(SpecError, match="did you mean 'swir2'"):
        bands.places((Band("swir3", 1600.0),))


def similarity(weights: BandWeights, first: int, second: int) -> float:
    one, other = weights((first, second)).flatten(1)
    return float(torch.cosine_similarity(one, other, dim=0).detach())


def test_spectral_kernels_of_near_wavelengths_are_alike() -> None:
    """So that red of one sensor helps red of another."""
    bands = all_bands("spectral")
    with seeded(0, "test"):
        kernels = BandConvolution(nn.Conv2d(1, 64, 8, 8), bands).kernels
    red, landsat_red = bands.places((COLOUR.bands[0], LANDSAT.bands[2]))
    (swir,), (thermal,) = bands.places(SENTINEL2.bands[-1:]), bands.places(THERMAL.bands)
    near = similarity(kernels, red, landsat_red)
    assert near > 0.95 > similarity(kernels, red, swir)
    assert similarity(kernels, red, thermal) < 0.8


def test_sar_and_thermal_bands_have_vectors_of_their_own() -> None:
    vv, vh = SAR
    own = SpectralWeights(all_bands("spectral"), (2,), 1.0, 0).parameter_of
    assert (own(vv), own(vh)) == ("sar_vv", "sar_vh")
    assert own(Band("VH-descending", 5.5e7, kind="sar")) == "sar_vh"
    assert own(Band("amplitude", 3e7, kind="sar")) == "sar_unknown"
    assert own(THERMAL.bands[0]) == "thermal"
    assert own(COLOUR.bands[0]) is None
    assert torch.equal(code(vv), code(Band("vv", 3e7, kind="sar")))  # no use of the wavelength
    assert not torch.equal(code(Band("a", 500.0)), code(Band("a", 500.0, 90.0)))
    encoder = encoder_of(all_bands("spectral"))
    learnt = [name for name, _ in encoder.named_parameters() if "by_band" in name]
    assert {name.rpartition(".")[2] for name in learnt} == {"thermal", "sar_vv", "sar_vh"}


def test_the_output_is_equally_large_for_any_number_of_bands() -> None:
    """When training starts, for bands that are as correlated as those of an image."""
    for mode in ("union", "spectral"):
        bands = all_bands(mode)
        with seeded(0, "test"):
            layer = BandConvolution(nn.Conv2d(1, 64, 8, 8, bias=False), bands)
        sizes = []
        for sensor in SENSORS:
            grey, own = torch.randn(32, 1, 16, 16), torch.randn(32, len(sensor.bands), 16, 16)
            images = math.sqrt(0.9) * grey + math.sqrt(0.1) * own
            sizes.append(float(layer(placed(images, sensor.bands, bands)).detach().std()))
        assert max(sizes) < 1.3 * min(sizes), (mode, sizes)


@modes
def test_an_ordinary_convolution_for_one_sensor(mode: str) -> None:
    bands = all_bands(mode)
    with seeded(0, "test"):
        layer = BandConvolution(nn.Conv2d(1, 6, 4, 4), bands)
    images = images_of(LANDSAT.bands)
    plain = layer.of_bands(bands.places(LANDSAT.bands))
    expected = layer(placed(images, LANDSAT.bands, bands))
    torch.testing.assert_close(plain(images), expected, rtol=1e-5, atol=1e-6)


def test_shown_bands() -> None:
    bands = all_bands("union")
    colour = placed(images_of(COLOUR.bands, 2), COLOUR.bands, bands)
    thermal = placed(images_of(THERMAL.bands, 1), THERMAL.bands, bands)
    alone = shown_bands(colour, bands)
    assert alone.channels == (2, 1, 0)  # by name
    assert not alone.mixed
    both = shown_bands(torch.cat([colour, thermal]), bands)
    assert both.channels == (2, 1, 3, 0)
    assert both.mixed
    assert both.present.tolist() == [[True, True, False, True]] * 2 + [[False, False, True, False]]


def test_a_backbone_without_a_first_convolution_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from rscl_bench.models.vit import ViT

    monkeypatch.setattr(ViT, "first_convolution", None)
    with pytest.raises(SpecError, match="'vit' takes no images that differ in bands"):
        encoder_of(all_bands("union"))


def test_band_names_of_any_form_are_parameters() -> None:
    names = ["B8A", "0.66", "0%2E66", "keys", "a b", "ä"]
    bands = bands_of("union", tuple(Band(name, 500.0) for name in names))
    encoder = encoder_of(bands)
    kernels = [n for n in encoder.state_dict() if ".kernels.by_band." in n]
    assert len(kernels) == len(names)
    for first, second in pairwise(kernels):
        assert first != second
