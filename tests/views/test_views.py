"""Views: photometric operations against torchvision's, image by image, and what bands become."""

from dataclasses import fields
from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor
from torchvision.transforms.v2 import functional as TF  # type: ignore[import-untyped]

from rscl_bench.errors import SpecError
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import Views
from rscl_bench.views.crops import Crops, Normalisation, draw_crops, resized_crops
from rscl_bench.views.photometric import (
    ColourJitter,
    blurred,
    coin,
    grey_of,
    greyed,
    jittered,
    noisy,
    solarised,
)
from rscl_bench.views.view import PixelScaling, View, make_view, places_of_rgb, view_size

RGB = (0, 1, 2)
ORDERS = tuple(permutations(RGB))
# torchvision's luma weights have four digits, kornia's three.
CLOSE: dict[str, Any] = {"atol": 3e-4, "rtol": 0}
# Every photometric operation, each at a chance of its own.
BUSY = View(
    min_scale=0.3,
    jitter=0.8,
    brightness=0.4,
    contrast=0.4,
    saturation=0.2,
    hue=0.1,
    grey=0.2,
    blur=0.5,
    noise=0.5,
    noise_std=(0.0, 0.2),
    solarise=0.3,
)
PLAIN = View(min_scale=0.3)
DEFAULTS = Views()


def both(*key: Any) -> tuple[torch.Generator, torch.Generator]:
    """Return what randomness is drawn from, on a CPU for device and host."""
    generator = torch_generator("cpu", *key)
    return generator, generator


def images_of(count: int, bands: int = 3, size: int = 12, seed: int = 0) -> Tensor:
    return torch.rand(count, bands, size, size, generator=torch_generator("cpu", seed, "images"))


def archive(
    bands: int, scale: float = 255.0, rgb: tuple[int, int, int] | None = None
) -> PixelScaling:
    return PixelScaling(Normalisation(torch.zeros(bands), torch.ones(bands)), scale, rgb)


def tiles_of(count: int, bands: int = 3, size: int = 20) -> Tensor:
    pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, bands), np.uint8)
    return torch.from_numpy(pixels)


def view_of(
    view: View, tiles: Tensor, archive: PixelScaling, seed: int = 0, size: int = 12
) -> Tensor:
    images, _ = make_view(tiles, view, size, 12, DEFAULTS, archive, *both(seed))
    return images


# RGB: torchvision's operations, whatever the order of the bands.


def draws_of_jitter(count: int, seed: int) -> tuple[list[int], Tensor]:
    """Return the order of operations and what every image's factors are made of."""
    generator = torch_generator("cpu", seed, "jitter")
    order = torch.randperm(4, generator=generator).tolist()
    return order, (2 * torch.rand(4, count, 1, 1, 1, generator=generator) - 1)[..., 0, 0, 0]


def jittered_by_torchvision(image: Tensor, order: list[int], factors: list[float]) -> Tensor:
    adjust = (TF.adjust_brightness, TF.adjust_contrast, TF.adjust_saturation, TF.adjust_hue)
    for operation in order:
        image = adjust[operation](image, factors[operation])
    return image


@pytest.mark.parametrize("rgb", ORDERS)
def test_jitter_is_torchvisions(rgb: tuple[int, int, int]) -> None:
    strength = ColourJitter(0.8, 0.7, 0.6, 0.2)
    first_operations = set()
    for seed in range(16):
        images = images_of(5, seed=seed)
        stored = torch.empty_like(images)
        stored[:, rgb] = images
        result = jittered(stored, strength, rgb, *both(seed, "jitter"))[:, rgb]
        order, draws = draws_of_jitter(5, seed)
        first_operations.add(order[0])
        for number, image in enumerate(images):
            three = [1 + s * float(d[number]) for s, d in zip(strength[:3], draws, strict=False)]
            factors = [*three, strength.hue * float(draws[3, number])]
            expected = jittered_by_torchvision(image, order, factors)
            torch.testing.assert_close(result[number], expected, **CLOSE)
    assert first_operations == {0, 1, 2, 3}


@pytest.mark.parametrize("rgb", ORDERS)
def test_grey_is_torchvisions(rgb: tuple[int, int, int]) -> None:
    images = images_of(4)
    stored = torch.empty_like(images)
    stored[:, rgb] = images
    result = greyed(stored, rgb)
    assert result.shape == images.shape
    expected = TF.rgb_to_grayscale(images, num_output_channels=3)
    torch.testing.assert_close(result, expected, **CLOSE)


@pytest.mark.parametrize("bands", [1, 3, 12])
def test_solarise_is_torchvisions(bands: int) -> None:
    images = torch.cat([images_of(3, bands), torch.full((1, bands, 12, 12), 0.5)])
    torch.testing.assert_close(solarised(images), TF.solarize(images, 0.5))
    assert (solarised(images) <= 0.5).all()


@pytest.mark.parametrize("bands", [1, 3, 12])
@pytest.mark.parametrize(("low", "high"), [(0.1, 2.0), (0.01, 0.3), (1.0, 1.0)])
def test_blur_is_torchvisions(bands: int, low: float, high: float) -> None:
    images = images_of(5, bands, size=15)
    result = blurred(images, low, high, torch_generator("cpu", 1))
    share = torch.rand(5, 1, generator=torch_generator("cpu", 1))[:, 0]
    reach = max(1, round(3 * high))
    for image, blur, drawn in zip(images, result, share, strict=True):
        sigma = low + (high - low) * float(drawn)
        expected = TF.gaussian_blur(image, [2 * reach + 1] * 2, [sigma] * 2)
        torch.testing.assert_close(blur, expected, atol=1e-5, rtol=0)
    assert not torch.equal(result, images) or high < 0.5


@pytest.mark.parametrize("bands", [1, 4])
def test_noise_has_a_deviation_for_every_image(bands: int) -> None:
    images = torch.full((300, bands, 24, 24), 0.5)
    result = noisy(images, 0.02, 0.1, torch_generator("cpu", 0))
    assert result.shape == images.shape
    assert result.min() >= 0
    assert result.max() <= 1
    change = (result - images).flatten(1)
    variances = change.square().mean(dim=1).numpy()
    assert stats.kstest(variances, stats.uniform(0.0004, 0.0096).cdf).pvalue > 0.01
    # Every pixel of every band draws its own.
    assert len(set(change.flatten().tolist())) > 0.9 * change.numel()
    assert stats.kstest((change / change.std(dim=1, keepdim=True))[0].numpy(), "norm").pvalue > 0.01


# Any other bands: all are kept, and what the module says happens to them.


@pytest.mark.parametrize("bands", [1, 4, 12])
def test_grey_of_other_bands_is_their_mean(bands: int) -> None:
    images = images_of(3, bands)
    assert grey_of(images, None).shape == (3, 1, 12, 12)
    for band in range(bands):
        torch.testing.assert_close(greyed(images, None)[:, band], images.mean(dim=1))


@pytest.mark.parametrize("bands", [1, 4, 12])
def test_jitter_of_other_bands(bands: int) -> None:
    strength = ColourJitter(0.5, 0.6, 0.7, 0.3)
    for seed in range(6):
        images = images_of(4, bands, seed=seed)
        result = jittered(images, strength, None, *both(seed, "jitter"))
        order, draws = draws_of_jitter(4, seed)
        replayed = torch_generator("cpu", seed, "jitter")
        torch.randperm(4, generator=replayed)
        torch.rand(4, 4, 1, 1, 1, generator=replayed)
        each = 2 * torch.rand(4, bands, 1, 1, generator=replayed) - 1
        for number in range(4):
            expected = images[number]
            light, contrast, saturation = (
                1 + s * float(d[number]) for s, d in zip(strength[:3], draws, strict=False)
            )
            for operation in order:
                grey = expected.mean(dim=0)
                if operation == 0:
                    expected = light * expected
                elif operation == 1:
                    expected = contrast * expected + (1 - contrast) * grey.mean()
                elif operation == 2:
                    expected = saturation * expected + (1 - saturation) * grey
                else:
                    expected = expected * (1 + strength.hue * each[number])
                expected = expected.clamp(0, 1)
            torch.testing.assert_close(result[number], expected, atol=1e-6, rtol=0)


def test_hue_of_other_bands_has_a_factor_for_every_band_of_every_image() -> None:
    images = torch.full((300, 4, 2, 2), 0.5)
    strength = ColourJitter(0, 0, 0, 0.4)
    factors = jittered(images, strength, None, *both(0))[:, :, 0, 0] / 0.5
    assert len(set(factors.flatten().tolist())) == 1200
    spread = stats.kstest(factors.flatten().numpy(), stats.uniform(0.6, 0.8).cdf)
    assert spread.pvalue > 0.01


@pytest.mark.parametrize("bands", [1, 2, 4, 8, 12])
def test_a_busy_view_keeps_all_bands(bands: int) -> None:
    result = view_of(BUSY, tiles_of(6, bands), archive(bands))
    assert result.shape == (6, bands, 12, 12)
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    assert torch.isfinite(result).all()


# Each image has parameters of its own, and each operation its chance.


@pytest.mark.parametrize("operation", range(3))
def test_factors_are_uniform_and_each_images_own(operation: int) -> None:
    """A pixel of red 0.4 and green 0.2 beside a black one tells the factor."""
    images = torch.zeros(400, 3, 1, 2)
    images[:, 0, 0, 0], images[:, 1, 0, 0] = 0.4, 0.2
    strength = ColourJitter(*[0.3 if place == operation else 0.0 for place in range(4)])
    result = jittered(images, strength, RGB, *both(3))
    factors = ((result[:, 0] - result[:, 1]) / 0.2)[:, 0, 0]
    assert len(set(factors.tolist())) > 380
    assert stats.kstest(factors.numpy(), stats.uniform(0.7, 0.6).cdf).pvalue > 0.01


@pytest.mark.parametrize("bands", [3, 5])
def test_factors_are_not_below_zero_nor_values_outside(bands: int) -> None:
    rgb = RGB if bands == 3 else None
    images = images_of(200, bands, size=4)
    for seed in range(6):
        strength = ColourJitter(3.0, 3.0, 3.0, 0.5)
        result = jittered(images, strength, rgb, *both(seed))
        assert result.min() >= 0
        assert result.max() <= 1
    dark = jittered(images, ColourJitter(3.0, 0, 0, 0), rgb, *both(0))
    assert (dark == 0).flatten(1).all(dim=1).float().mean() == pytest.approx(1 / 3, abs=0.1)


def test_coin() -> None:
    drawn = coin(4000, 0.3, torch_generator("cpu", 0))
    assert drawn.shape == (4000, 1, 1, 1)
    assert float(drawn.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert not coin(1000, 0.0, torch_generator("cpu", 0)).any()
    assert coin(1000, 1.0, torch_generator("cpu", 0)).all()


STRONG = {"brightness": 0.9, "contrast": 0.9, "saturation": 0.9, "hue": 0.5}


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize(
    ("operation", "settings"),
    [
        ("jitter", STRONG),
        ("grey", {}),
        ("blur", {"blur_sigma": (20.0, 40.0)}),
        ("noise", {"noise_std": (0.1, 0.2)}),
        ("solarise", {}),
    ],
)
def test_each_operation_has_its_chance(
    operation: str, settings: dict[str, Any], bands: int
) -> None:
    tiles, kind = tiles_of(600, bands, size=8), archive(bands, rgb=RGB if bands == 3 else None)
    plain = view_of(PLAIN, tiles, kind, size=8)
    for chance in (0.25, 1.0):
        view = View(min_scale=0.3, **{operation: chance}, **settings)
        changed = (view_of(view, tiles, kind, size=8) - plain).abs().flatten(1).amax(dim=1) > 1e-3
        assert float(changed.float().mean()) == pytest.approx(chance, abs=0.06)


def test_operations_of_no_strength_change_nothing() -> None:
    tiles, kind = tiles_of(5), archive(3, rgb=RGB)
    neutral = View(min_scale=0.3, jitter=1.0)
    torch.testing.assert_close(view_of(neutral, tiles, kind), view_of(PLAIN, tiles, kind))
    for seed in range(2):
        images = images_of(4)
        assert torch.equal(jittered(images, ColourJitter(0, 0, 0, 0), RGB, *both(seed)), images)


def test_plain_view_is_the_crop() -> None:
    tiles = tiles_of(5)
    crops = draw_crops(5, 20, 20, (0.3, 1.0), 0.5, torch_generator("cpu", 0))
    view, drawn = make_view(tiles, PLAIN, 12, 12, DEFAULTS, archive(3), *both(0))
    assert torch.equal(view, resized_crops(tiles, crops, 12))
    for field in fields(Crops):
        assert torch.equal(getattr(drawn, field.name), getattr(crops, field.name))


def test_crop_is_the_same_whatever_colours_do() -> None:
    """Solarised at full chance, what was below half the full scale shows the plain view."""
    tiles = tiles_of(5)
    solar = view_of(View(min_scale=0.3, solarise=1.0), tiles, archive(3))
    plain = view_of(PLAIN, tiles, archive(3))
    expected = torch.where(plain < 127.5, plain, 255 - plain)
    torch.testing.assert_close(solar, expected, atol=1e-3, rtol=0)


def test_operations_come_in_order() -> None:
    """Jitter makes all black or white before grey, blur smooths, solarising comes last."""
    view = View(min_scale=1.0, grey=1.0, blur=1.0, blur_sigma=(30.0, 30.0), solarise=1.0)
    tiles = tiles_of(4)
    result = view_of(view, tiles, archive(3, rgb=RGB)) / 255
    crops = draw_crops(4, 20, 20, (1.0, 1.0), 0.5, torch_generator("cpu", 0))
    images = resized_crops(tiles, crops, 12) / 255
    sigma = 30 * 12 / 224
    reach = round(3 * sigma)
    grey = TF.rgb_to_grayscale(images, num_output_channels=3)
    smooth = TF.gaussian_blur(grey, [2 * reach + 1] * 2, [sigma] * 2)
    torch.testing.assert_close(result, TF.solarize(smooth, 0.5), **CLOSE)


@pytest.mark.parametrize("size", [8, 12, 24])
def test_blur_is_of_the_protocols_image_size(size: int) -> None:
    """A small view is blurred as much in its pixels as a large one (SwAV and DINO, code)."""
    view = View(min_scale=1.0, blur=1.0, blur_sigma=(20.0, 20.0))
    tiles = tiles_of(4)
    result, _ = make_view(tiles, view, size, 24, DEFAULTS, archive(3), *both(0))
    crops = draw_crops(4, 20, 20, (1.0, 1.0), 0.5, torch_generator("cpu", 0))
    sigma = 20 * 24 / 224
    expected = TF.gaussian_blur(resized_crops(tiles, crops, size).float(), [13, 13], [sigma] * 2)
    torch.testing.assert_close(result, expected, atol=1e-3, rtol=0)


def test_noise_comes_after_grey_and_blur_and_before_solarising() -> None:
    strong = {"min_scale": 1.0, "grey": 1.0, "blur": 1.0, "blur_sigma": (30.0, 30.0)}
    tiles, kind = tiles_of(40), archive(3, rgb=RGB)
    smooth = view_of(View(**strong), tiles, kind) / 255
    result = view_of(View(**strong, noise=1.0, noise_std=(0.05, 0.05)), tiles, kind) / 255
    change = result - smooth
    # Neither made grey nor smoothed, and of the deviation that was asked for.
    assert float(change.std()) == pytest.approx(0.05, rel=0.03)
    assert float((change[:, 0] * change[:, 1]).mean()) == pytest.approx(0, abs=2e-4)
    solar = View(**strong, noise=1.0, noise_std=(0.05, 0.05), solarise=1.0)
    torch.testing.assert_close(
        view_of(solar, tiles, kind) / 255, torch.where(result < 0.5, result, 1 - result)
    )


# Units, sizes and randomness.


def test_minimum_of_the_protocol_holds_where_a_view_has_none() -> None:
    tiles = tiles_of(50)
    default = view_of(View(), tiles, archive(3))
    assert torch.equal(default, view_of(View(min_scale=DEFAULTS.min_scale), tiles, archive(3)))
    assert not torch.equal(default, view_of(View(min_scale=0.2), tiles, archive(3)))


def test_colours_are_of_the_full_scale_and_normalised_last() -> None:
    tiles = tiles_of(6).to(torch.uint16)  # uint8 would be rounded
    kind = archive(3, rgb=RGB)
    result = view_of(BUSY, tiles, kind)
    wide = view_of(BUSY, tiles * 257, archive(3, 65535.0, RGB))
    torch.testing.assert_close(wide, result * 257, atol=0.1, rtol=1e-4)
    mean, std = torch.tensor([10.0, 20.0, 30.0]), torch.tensor([2.0, 3.0, 4.0])
    standard = view_of(BUSY, tiles, PixelScaling(Normalisation(mean, std), 255.0, RGB))
    expected = (result - mean[:, None, None]) / std[:, None, None]
    torch.testing.assert_close(standard, expected)


@pytest.mark.parametrize("bands", [3, 4])
def test_same_generator_same_view(bands: int) -> None:
    tiles, kind = tiles_of(6, bands), archive(bands, rgb=RGB if bands == 3 else None)
    assert torch.equal(view_of(BUSY, tiles, kind, 5), view_of(BUSY, tiles, kind, 5))
    assert not torch.equal(view_of(BUSY, tiles, kind, 5), view_of(BUSY, tiles, kind, 6))
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = view_of(BUSY, tiles, kind, 5)
        torch.manual_seed(2)
        assert torch.equal(view_of(BUSY, tiles, kind, 5), first)


def test_two_views_of_one_generator_differ() -> None:
    tiles, two = tiles_of(6), both(0)
    views = [make_view(tiles, BUSY, 12, 12, DEFAULTS, archive(3), *two)[0] for _ in range(2)]
    assert (views[0] != views[1]).flatten(1).any(dim=1).all()


@pytest.mark.parametrize(
    ("share", "image_size", "multiple", "expected"),
    [
        (1.0, 224, 16, 224),
        (3 / 7, 224, 16, 96),
        (3 / 7, 96, 8, 40),
        (3 / 7, 64, 1, 27),
        (0.1, 64, 16, 16),
        (1.0, 48, 32, 64),
    ],
)
def test_size_of_a_view(share: float, image_size: int, multiple: int, expected: int) -> None:
    assert view_size(View(size=share), image_size, multiple) == expected


@pytest.mark.parametrize(
    ("bands", "places"),
    [
        (("red", "green", "blue"), (0, 1, 2)),
        (("blue", "green", "red"), (2, 1, 0)),
        (("green", "red", "blue"), (1, 0, 2)),
        (("red", "green", "blue", "nir"), None),
        (("red",), None),
        (("red", "green", "nir"), None),
    ],
)
def test_places_of_rgb(bands: tuple[str, ...], places: tuple[int, int, int] | None) -> None:
    assert places_of_rgb(bands) == places


@pytest.mark.parametrize(
    "wrong", [{"jitter": 1.5}, {"hue": 0.6}, {"size": 0.0}, {"min_scale": 0.0}, {"sharpen": 0.5}]
)
def test_impossible_views_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, SpecError)):
        View(**wrong)
