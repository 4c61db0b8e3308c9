"""MaskFeat and its histograms of oriented gradients against transcriptions, pixel by pixel."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from helpers.masked import build, encoder_of, pixels
from numpy.typing import NDArray

from rscl_bench.models.swin import Swin, SwinParams
from rscl_bench.models.vit import ViT, ViTParams
from rscl_bench.objectives.maskfeat import hog
from rscl_bench.randomness import torch_generator
from rscl_bench.views.view import View

Array = NDArray[np.float64]


def slow_hog(band: Array, cell: int, bins: int) -> Array:
    """Return one band's histograms, ``[bins, h, w]``."""
    size = len(band)

    def value(row: int, column: int) -> float:
        # Beyond an edge, the picture is mirrored at the last pixel.
        row, column = (
            -n if n < 0 else 2 * (size - 1) - n if n >= size else n for n in (row, column)
        )
        return float(band[row, column])

    votes = np.zeros((bins, size // cell, size // cell))
    for row in range(size):
        for column in range(size):
            across = down = 0.0
            for step, weight in ((-1, 1), (0, 2), (1, 1)):
                before, after = value(row + step, column - 1), value(row + step, column + 1)
                across += weight * (before - after)
                before, after = value(row - 1, column + step), value(row + 1, column + step)
                down += weight * (before - after)
            which = math.floor(math.atan2(across, down) / math.pi * bins) % bins
            votes[which, row // cell, column // cell] += math.sqrt(across**2 + down**2)
    for row in range(size // cell):
        for column in range(size // cell):
            length = math.sqrt(sum(vote**2 for vote in votes[:, row, column]))
            if length > 0:
                votes[:, row, column] /= length
    return votes


def picture(kind: str, bands: int, size: int) -> Array:
    rng = np.random.default_rng(0)
    if kind == "noise":
        return rng.standard_normal((bands, size, size))
    if kind == "whole":  # ties: axis-aligned gradients, and none
        return rng.integers(0, 3, (bands, size, size)).astype(float)
    ramp = np.zeros((bands, size, size))
    ramp[:, :, size // 2 :] = 2.0
    return ramp


@pytest.mark.parametrize("kind", ["noise", "whole", "edge"])
@pytest.mark.parametrize(("bands", "size", "cell", "bins"), [(3, 16, 8, 9), (2, 12, 4, 6)])
def test_hog_equals_the_transcription(
    kind: str, bands: int, size: int, cell: int, bins: int
) -> None:
    image = picture(kind, bands, size)
    result = hog(torch.from_numpy(image).float()[None], cell, bins)[0].double().numpy()
    assert result.shape == (bands, bins, size // cell, size // cell)
    for band in range(bands):
        expected = slow_hog(image[band], cell, bins)
        assert np.abs(result[band] - expected).max() < 1e-5
    lengths = np.linalg.norm(result, axis=1)
    assert np.all((np.abs(lengths - 1) < 1e-5) | (lengths == 0))


def test_flat_cells_are_zero_and_edges_have_one_orientation() -> None:
    image = torch.from_numpy(picture("edge", 1, 32)).float()[None]
    result = hog(image, 8, 9)[0, 0]
    assert not result[:, :, 0].any()
    assert not result[:, :, 3].any()
    assert (result[:, :, 1:3].max(dim=0).values == 1).all()
    # Histograms ignore shift and scale of the values, and the sign of an edge.
    assert not hog(torch.full((1, 2, 16, 16), 0.37), 8, 9).any()
    assert torch.allclose(hog(3 * image + 1, 8, 9)[0, 0], result, atol=1e-6)
    assert torch.allclose(hog(-image, 8, 9)[0, 0], result, atol=1e-6)


@pytest.mark.parametrize(("kind", "bands"), [("vit", 3), ("vit", 4), ("swin", 3)])
@pytest.mark.parametrize("cell", [2, 8])
def test_loss_equals_the_transcription(kind: str, bands: int, cell: int) -> None:
    objective = build("maskfeat", encoder_of(kind, bands=bands), hog_cell=cell)
    cell = min(cell, 4)
    images = pixels(3, bands)
    output = objective([images], torch_generator("cpu", 3))
    locations = objective.draw(3, 4, torch_generator("cpu", 3))
    with torch.no_grad():
        features = objective.encoder.grid(output.encoded[0]).double().numpy()
    weight, bias = (p.detach().double().numpy() for p in objective.predict.parameters())
    errors: list[float] = []
    for image in range(3):
        bands_hog = [slow_hog(band, cell, 9) for band in images[image].double().numpy()]
        for location in locations[image].tolist():
            row, column = divmod(location, 4)
            predicted = weight @ features[image, :, row, column] + bias
            wanted = []
            for down in range(4 // cell):
                for right in range(4 // cell):
                    at = row * (4 // cell) + down, column * (4 // cell) + right
                    wanted += [one[which][at] for one in bands_hog for which in range(9)]
            errors += [(p - w) ** 2 for p, w in zip(predicted, wanted, strict=True)]
    assert float(output.loss.detach()) == pytest.approx(np.mean(errors), rel=1e-4)


@pytest.mark.parametrize(
    ("encoder", "cell", "outputs"),
    [
        (lambda: ViT(ViTParams(patch_size=16, embed_dim=8, depth=1, num_heads=1), 32, 3), 8, 108),
        (lambda: ViT(ViTParams(patch_size=14, embed_dim=8, depth=1, num_heads=1), 28, 3), 7, 108),
        (lambda: ViT(ViTParams(patch_size=8, embed_dim=8, depth=1, num_heads=1), 16, 4), 8, 36),
        (lambda: Swin(SwinParams(embed_dim=6, num_heads=(1, 1, 1, 1)), 32, 3), 8, 16 * 27),
    ],
)
def test_hog_cells_of_a_location(encoder: Any, cell: int, outputs: int) -> None:
    objective = build("maskfeat", encoder())
    assert objective.hog_cell == cell
    assert objective.predict.out_features == outputs


def test_view_is_the_papers() -> None:
    assert build("maskfeat", encoder_of("vit")).views == (View(min_scale=0.5),)
