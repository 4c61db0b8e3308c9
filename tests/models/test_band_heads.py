"""Errors over the bands that images have, against slow references."""

import pytest
import torch
from torch import Tensor, nn

from rscl_bench.encoder_bands import EncoderBands
from rscl_bench.models.band_heads import (
    BandHead,
    difference,
    mean_over_present,
    predict_bands,
    standardised,
)
from rscl_bench.randomness import seeded
from rscl_bench.testing.four_sensors import COLOUR, SENTINEL2, THERMAL

BANDS = EncoderBands.of("union", [COLOUR.bands, THERMAL.bands, SENTINEL2.bands])
NAN = torch.nan


def test_the_error_is_the_mean_over_images_of_their_own_bands() -> None:
    targets = torch.tensor([[1.0, 2.0, NAN], [NAN, NAN, 4.0]])
    predicted = torch.tensor([[0.0, 0.0, 9.0], [9.0, 9.0, 1.0]], requires_grad=True)
    loss = mean_over_present(difference(predicted, targets).square(), targets)
    assert float(loss.detach()) == pytest.approx(((1 + 4) / 2 + 9) / 2)
    (gradient,) = torch.autograd.grad(loss, predicted)
    assert gradient.tolist() == [[-0.5, -1.0, 0.0], [0.0, 0.0, -3.0]]


def test_standardised_patches_leave_absent_bands_out() -> None:
    patches = torch.randn(2, 3, 12, generator=torch.Generator().manual_seed(0))
    patches[0, :, 1::2] = NAN
    result = standardised(patches, 1e-6)
    for image in range(2):
        for patch in range(3):
            known = patches[image, patch][~patches[image, patch].isnan()]
            expected = (known - known.mean()) / (known.var() + 1e-6).sqrt()
            own = result[image, patch]
            torch.testing.assert_close(own[~own.isnan()], expected)
    assert torch.equal(result.isnan(), patches.isnan())


def one_by_one(head: BandHead, features: Tensor, channels: tuple[int, ...]) -> Tensor:
    """Return the predictions of each band by a linear layer of its own, ``[..., outputs, n]``."""
    rows = []
    for channel in channels:
        own = nn.Linear(head.weights.shape[1], head.weights.shape[0])
        with torch.no_grad():
            own.weight.copy_(head.weights((channel,))[0])
            own.bias.copy_(head.bias)
        rows.append(own(features))
    return torch.stack(rows, dim=-1)


def test_predictions_are_of_the_bands_of_the_batch() -> None:
    with seeded(0, "test"):
        head = BandHead(6, 4, BANDS, 0.1)
        nn.init.normal_(head.bias)
    features = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
    images = torch.full((2, len(BANDS.bands), 8, 8), NAN)
    images[0, :3] = 1.0
    images[1, 3] = 1.0
    predicted = predict_bands(head, features, images)
    by_name = (2, 1, 3, 0)  # blue, green, lwir, red
    expected = one_by_one(head, features, by_name).flatten(-2)
    torch.testing.assert_close(predicted, expected)
