import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from torchvision.transforms import v2  # type: ignore[import-untyped]
from torchvision.transforms.v2 import functional as TF  # type: ignore[import-untyped]

from rscl_bench.randomness import torch_generator
from rscl_bench.spec import Views
from rscl_bench.views.crops import (
    Crops,
    Normalisation,
    crops_as_products,
    draw_crops,
    normalised,
    resize_weights,
    resized_crops,
    whole_tiles,
)

CPU = torch.device("cpu")


def plain(bands: int) -> Normalisation:
    return Normalisation(torch.zeros(bands), torch.ones(bands))


def one_crop(top: int, left: int, height: int, width: int, flip: bool) -> Crops:
    return Crops(
        top=torch.tensor([top]),
        left=torch.tensor([left]),
        height=torch.tensor([height]),
        width=torch.tensor([width]),
        flip=torch.tensor([flip]),
    )


def reference(
    tile: Tensor, top: int, left: int, height: int, width: int, flip: bool, size: int
) -> Tensor:
    """Return torchvision's result in the dtype that ours has."""
    image: Tensor = tile.permute(2, 0, 1)
    image = image if tile.dtype == torch.uint8 and len(image) <= 4 else image.float()
    image = TF.resized_crop(image, top, left, height, width, [size, size], antialias=True)
    return image.flip(2) if flip else image


@settings(max_examples=120)
@given(
    data=st.data(),
    bands=st.integers(1, 8),
    dtype=st.sampled_from(["uint8", "uint16"]),
    tile=st.tuples(st.integers(8, 60), st.integers(8, 60)),
    size=st.integers(4, 96),
    flip=st.booleans(),
)
def test_equals_torchvision(
    data: st.DataObject, bands: int, dtype: str, tile: tuple[int, int], size: int, flip: bool
) -> None:
    height, width = (data.draw(st.integers(1, side)) for side in tile)
    top = data.draw(st.integers(0, tile[0] - height))
    left = data.draw(st.integers(0, tile[1] - width))
    brightest = 255 if dtype == "uint8" else 65535
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    pixels = rng.integers(0, brightest + 1, (1, *tile, bands)).astype(dtype)
    tiles = torch.from_numpy(pixels)
    crop = one_crop(top, left, height, width, flip)
    result = resized_crops(tiles, crop, size)
    expected = reference(tiles[0], top, left, height, width, flip, size)
    assert result.shape == (1, bands, size, size)
    assert result.dtype == expected.dtype
    assert torch.equal(result[0], expected)

    products = crops_as_products(tiles, crop, size)
    exact = reference(tiles[0].int(), top, left, height, width, flip, size)
    assert products.shape == result.shape
    assert products.dtype == torch.float32
    assert (products[0] - exact).abs().max() < 1e-5 * brightest  # 0.003 of a digital number
    for images in (result, products):
        normal = normalised(images, plain(bands))
        assert normal.dtype == torch.float32
        assert normal.is_contiguous()


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_crops_of_a_batch_are_each_their_own(threads: int) -> None:
    tiles = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (9, 30, 30, 3), np.uint8))
    crops = draw_crops(9, 30, 30, (0.2, 1.0), 0.5, torch_generator("cpu", 3))
    assert 0 < crops.flip.sum() < 9
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        result = resized_crops(tiles, crops, 16)
    finally:
        torch.set_num_threads(before)
    for number in range(9):
        place = [int(value[number]) for value in (crops.top, crops.left, crops.height, crops.width)]
        top, left, height, width = place
        flip = bool(crops.flip[number])
        expected = reference(tiles[number], top, left, height, width, flip, 16)
        assert torch.equal(result[number], expected)


def test_no_resizing_is_exact() -> None:
    tiles = torch.from_numpy(np.random.default_rng(0).integers(0, 65536, (2, 12, 12, 4), np.uint16))
    result = resized_crops(tiles, whole_tiles(2, 12, 12, CPU), 12)
    assert torch.equal(result, tiles.permute(0, 3, 1, 2).float())
    assert result.dtype == torch.float32


def test_normalisation_leaves_its_input_alone() -> None:
    images = torch.ones(1, 2, 3, 3)
    normalised(images, Normalisation(torch.ones(2), torch.ones(2)))
    assert torch.equal(images, torch.ones(1, 2, 3, 3))


def test_normalisation_is_per_band() -> None:
    tiles = torch.full((1, 8, 8, 2), 10, dtype=torch.uint8)
    normalisation = Normalisation(torch.tensor([4.0, 8.0]), torch.tensor([2.0, 0.5]))
    result = normalised(resized_crops(tiles, whole_tiles(1, 8, 8, CPU), 4), normalisation)
    assert torch.allclose(result[0, 0], torch.tensor(3.0), atol=1e-5)
    assert torch.allclose(result[0, 1], torch.tensor(4.0), atol=1e-5)


@given(start=st.integers(0, 20), length=st.integers(1, 20), size=st.integers(1, 50))
def test_weights_are_a_mean_over_the_crop(start: int, length: int, size: int) -> None:
    weights = resize_weights(torch.tensor([start]), torch.tensor([length]), 40, size)[0]
    assert weights.shape == (size, 40)
    assert torch.allclose(weights.sum(dim=1), torch.ones(size), atol=1e-6)
    assert (weights >= 0).all()
    assert not weights[:, :start].any()
    assert not weights[:, start + length :].any()


def drawn(count: int, side: int, views: Views, seed: int = 0) -> Crops:
    scale, flip = (views.min_scale, 1.0), views.horizontal_flip
    return draw_crops(count, side, side, scale, flip, torch_generator("cpu", seed))


@pytest.mark.parametrize("min_scale", [0.08, 0.5, 0.8])
def test_crops_are_distributed_as_torchvisions(min_scale: float) -> None:
    count, side = 6000, 256
    crops = drawn(count, side, Views(min_scale=min_scale))
    torch.manual_seed(0)
    image = torch.empty(3, side, side)
    transform = v2.RandomResizedCrop(64, scale=(min_scale, 1.0), antialias=True)
    params = [transform.make_params([image]) for _ in range(count)]
    theirs = {name: np.array([p[name] for p in params]) for name in params[0]}
    ours = {name: getattr(crops, name).numpy() for name in ("top", "left", "height", "width")}
    pairs = [(ours[name], theirs[name]) for name in ours]
    pairs.append((ours["height"] * ours["width"], theirs["height"] * theirs["width"]))
    pairs.append((ours["height"] / ours["width"], theirs["height"] / theirs["width"]))
    for mine, other in pairs:
        assert stats.ks_2samp(mine, other).pvalue > 1e-3


@pytest.mark.parametrize("side", [1, 7, 64])
def test_crops_lie_inside_the_tile(side: int) -> None:
    crops = drawn(4000, side, Views(min_scale=0.05))
    for start, length in ((crops.top, crops.height), (crops.left, crops.width)):
        assert (start >= 0).all()
        assert (length > 0).all()
        assert (start + length <= side).all()
    if side == 64:  # both borders are reached
        assert (crops.top + crops.height == side).any()
        assert (crops.left == 0).any()


def test_whole_tile_where_no_draw_fits() -> None:
    # At full scale only the square fits, which ten draws of the ratio hardly ever hit.
    crops = drawn(500, 256, Views(min_scale=1.0))
    whole = (crops.height == 256) & (crops.width == 256)
    assert whole.float().mean() > 0.95
    assert not crops.top[whole].any()
    assert not crops.left[whole].any()


def test_share_of_flips() -> None:
    assert not drawn(200, 32, Views(horizontal_flip=0.0)).flip.any()
    assert drawn(200, 32, Views(horizontal_flip=1.0)).flip.all()
    share = float(drawn(4000, 32, Views(horizontal_flip=0.3)).flip.float().mean())
    assert abs(share - 0.3) < 0.03


def test_draws_are_independent_of_each_other() -> None:
    crops = drawn(4000, 256, Views(min_scale=0.2, horizontal_flip=0.5))
    top = crops.top / (256 - crops.height + 1)
    left = crops.left / (256 - crops.width + 1)
    columns = [crops.height * crops.width, crops.height / crops.width, top, left, crops.flip]
    correlation = np.corrcoef(np.stack([column.double().numpy() for column in columns]))
    assert np.abs(correlation - np.eye(5)).max() < 0.06


def test_same_key_same_crops() -> None:
    first, again, other = (drawn(50, 64, Views(), seed) for seed in (5, 5, 6))
    for name in ("top", "left", "height", "width", "flip"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))
