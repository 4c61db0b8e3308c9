"""LUMP is data mixup, and MAE reconstructs the mixed image."""

from typing import Any

import pytest
import torch
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.randomness import torch_generator
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import differing


class Views(BaseSGDPlugin):  # type: ignore[misc]
    """Keeps the views of every step, by task and step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[tuple[int, int], Tensor] = {}

    def after_forward(self, trainer: Any, **_: Any) -> None:
        (self.seen[trainer.task, trainer.step],) = trainer.views


def test_the_recipe_is_data_mixup_to_the_last_bit() -> None:
    for seed in (0, 1):
        lump, mixup, plain = (
            train(start(tiny_spec(name, seed=seed)))
            for name in ("lump", "cosmae-data-mixup", "finetune")
        )
        for task in range(3):
            assert not differing(lump[task], mixup[task])
            assert bool(differing(lump[task], plain[task])) == (task > 0)


def test_target_is_the_mixed_image() -> None:
    """The loss, computed patch by patch, is the error against the pixels of the mixed image."""
    losses: list[tuple[float, float, float]] = []
    watch = Views()
    train(start(tiny_spec(), plugins=[watch]))
    unmixed = watch.seen

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def before_backward(self, trainer: Any, **_: Any) -> None:
            if trainer.task == 0:
                return
            step = (trainer.task, trainer.step)
            (mixed,), mae = trainer.views, trainer.model
            noise = torch.rand(8, 4, generator=torch_generator("cpu", 0, "objective", *step))
            keep, hidden = mae.split_tokens(noise)
            with torch.no_grad():
                predicted = mae.decode(mae.encoder(mixed, keep), keep, hidden, mixed)
            of_mixed, of_unmixed = (
                error(predicted, images, hidden) for images in (mixed, unmixed[step])
            )
            losses.append((float(trainer.loss.detach()), of_mixed, of_unmixed))

    train(start(tiny_spec("lump"), plugins=[Look()]))
    assert len(losses) == 8
    for loss, of_mixed, of_unmixed in losses:
        assert loss == pytest.approx(of_mixed, rel=1e-5)
        assert abs(of_unmixed - of_mixed) > 1e-4


def error(predicted: Tensor, images: Tensor, hidden: Tensor) -> float:
    """Return the mean squared error of hidden patches of 8 x 8 pixels, channels last."""
    total = 0.0
    for index, image in enumerate(images):
        for position, token in enumerate(hidden[index]):
            row, column = divmod(int(token) - 1, 2)
            patch = image[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            target = patch.permute(1, 2, 0).flatten()
            total += float((predicted[index, position] - target).square().mean())
    return total / hidden.numel()
