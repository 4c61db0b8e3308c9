"""SimMIM against a transcription of Xie et al. (2022), pixel by pixel."""

import pytest
import torch
from helpers.masked import build, encoder_of, hidden_pixels, pixels

from rscl_bench.randomness import torch_generator
from rscl_bench.views.view import View


@pytest.mark.parametrize(("kind", "bands"), [("vit", 3), ("vit", 4), ("swin", 3)])
@pytest.mark.parametrize("unit", [1 / 7, 0.5])
def test_loss_equals_the_transcription(kind: str, bands: int, unit: float) -> None:
    objective = build("simmim", encoder_of(kind, bands=bands), mask_unit=unit, mask_ratio=0.3)
    images = pixels(3, bands)
    hidden = hidden_pixels(objective, images, 3)
    output = objective([images], torch_generator("cpu", 3))
    with torch.no_grad():
        features = objective.encoder.grid(output.encoded[0]).double()
    weight, bias = objective.predict.weight.double(), objective.predict.bias.double()
    total, count = 0.0, 0
    for image in range(3):
        for row in range(16):
            for column in range(16):
                if not hidden[image, row, column]:
                    continue
                count += 1
                vector = features[image, :, row // 4, column // 4]
                for band in range(bands):
                    # Layout of the output of a location: rows, columns, bands.
                    number = ((row % 4) * 4 + column % 4) * bands + band
                    predicted = float((weight[number] @ vector + bias[number]).detach())
                    total += abs(predicted - float(images[image, band, row, column]))
    assert float(output.loss.detach()) == pytest.approx(total / count / bands, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "image_size", "side", "hidden"),
    [
        ("vit", 112, 7, 30),  # 28 cells of 4 pixels, units of 4 cells; as 224 pixels, cells of 8
        ("swin", 112, 7, 30),
        ("vit", 32, 8, 39),  # 32 / 7 = 4.6 pixels, so one cell
        ("vit", 16, 4, 10),
        ("vit", 20, 5, 15),
        ("swin", 16, 8, 39),
    ],
)
def test_units_scale_with_the_image(kind: str, image_size: int, side: int, hidden: int) -> None:
    objective = build("simmim", encoder_of(kind))
    mask = objective.draw(5, image_size, torch_generator("cpu", 0))
    assert mask.shape == (5, side, side)
    assert (mask.sum(dim=(1, 2)) == hidden).all()


def test_view_is_the_papers() -> None:
    assert build("simmim", encoder_of("vit")).views == (View(min_scale=0.67),)


def test_smaller_views_work() -> None:
    objective = build("simmim", encoder_of("vit"), view={"size": 0.5})
    assert torch.isfinite(objective([pixels(2, size=8)], torch_generator("cpu", 0)).loss)


def test_unit_is_an_option() -> None:
    objective = build("simmim", encoder_of("vit"), mask_unit=0.5)
    mask = objective.draw(2, 32, torch_generator("cpu", 0))
    assert mask.shape == (2, 2, 2)
    assert mask.sum(dim=(1, 2)).tolist() == [3, 3]
