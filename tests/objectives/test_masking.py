"""Masking: the choice of hidden locations, and that hidden pixels do not reach the encoder."""

import numpy as np
import pytest
import torch
from helpers.backbones import SWIN
from helpers.masked import build, encoder_of, hidden_pixels, pixels
from numpy.typing import NDArray

from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import MaskableEncoder
from rscl_bench.randomness import torch_generator
from rscl_bench.testing import check_objective

Mask = NDArray[np.bool_]


NAMES = ("simmim", "maskfeat", "beit")


@pytest.mark.parametrize(
    ("name", "hidden"), [("maskfeat", 78), ("beit", 75)]
)  # the authors' numbers at 224 pixels
def test_counts_at_the_papers_size(name: str, hidden: int) -> None:
    objective = build(name, encoder_of("vit"), **({"vocabulary": 8} if name == "beit" else {}))
    assert objective.draw(3, 14, torch_generator("cpu", 0)).shape == (3, hidden)
    least = {"maskfeat": 78 // 5, "beit": 16}
    assert objective.masking.min_block == least[name]


# Hidden pixels do not reach the encoder


@pytest.mark.parametrize("kind", ["vit", "swin"])
@pytest.mark.parametrize("name", NAMES)
def test_hidden_pixels_do_not_reach_the_encoder(name: str, kind: str) -> None:
    objective = build(name, encoder_of(kind), **({"vocabulary": 8} if name == "beit" else {}))
    images = pixels(4)
    hidden = hidden_pixels(objective, images, 3)[:, None]
    assert 0 < hidden.float().mean() < 1
    encoded = objective([images], torch_generator("cpu", 3)).encoded[0]
    other = torch.where(hidden, pixels(4, seed=8), images)
    assert torch.equal(objective([other], torch_generator("cpu", 3)).encoded[0], encoded)
    other = torch.where(hidden, images, pixels(4, seed=8))
    assert not torch.equal(objective([other], torch_generator("cpu", 3)).encoded[0], encoded)


@pytest.mark.parametrize("kind", ["vit", "swin"])
@pytest.mark.parametrize("name", ["maskfeat", "beit"])
def test_what_is_predicted_is_what_is_hidden(name: str, kind: str) -> None:
    objective = build(name, encoder_of(kind), **({"vocabulary": 8} if name == "beit" else {}))
    hidden = hidden_pixels(objective, pixels(4), 3)
    locations = objective.draw(4, 4, torch_generator("cpu", 3))
    for image in range(4):
        for row in range(16):
            for column in range(16):
                location = row // 4 * 4 + column // 4
                assert bool(hidden[image, row, column]) == (location in locations[image].tolist())


@pytest.mark.parametrize("kind", ["vit", "swin"])
def test_locations_are_where_the_encoder_has_them(kind: str) -> None:
    """A change of the pixels under a location changes the vector of this location most."""
    encoder = encoder_of(kind)
    assert isinstance(encoder, MaskableEncoder)
    images = torch.zeros(1, 3, 16, 16)
    images[:, :, 4:8, 12:16] = 3.0
    with torch.no_grad():
        before, after = (encoder.locations(encoder(x)) for x in (torch.zeros_like(images), images))
    assert int((after - before).norm(dim=2).argmax()) == 1 * 4 + 3


@pytest.mark.parametrize("name", NAMES)
def test_encoders_that_cannot_hide_are_refused(name: str) -> None:
    message = rf"Objective '{name}' needs an encoder .* ResNet cannot; set backbone.name = 'vit'"
    with pytest.raises(SpecError, match=message):
        build(name, encoder_of("resnet"))


@pytest.mark.parametrize(
    ("name", "ratio"),
    [("simmim", 0.99), ("maskfeat", 0.01), ("maskfeat", 0.99), ("beit", 0.01), ("beit", 0.99)],
)  # SimMIM rounds up
def test_ratios_that_hide_all_or_nothing_are_refused(name: str, ratio: float) -> None:
    objective = build(name, encoder_of("vit"), mask_ratio=ratio)
    with pytest.raises(SpecError, match="at least one must be hidden and one visible"):
        objective([pixels(2)], torch_generator("cpu", 0))


@pytest.mark.parametrize("name", NAMES)
def test_contract_on_swin(name: str) -> None:
    check_objective(name, {"vocabulary": 16} if name == "beit" else None, SWIN)
