"""LUMP: what the encoder sees, solved from its pixels, and what is reconstructed."""

from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.randomness import torch_generator
from rscl_bench.testing import start, tiny_spec, tiny_stores, train
from rscl_bench.testing.tiny import differing, recipe

Step = tuple[int, int]

# Views that are whole tiles, each mirrored or not: every crop can be told from its pixels.
FLIPS = ("views.min_scale=1.0",)


class Views(BaseSGDPlugin):  # type: ignore[misc]
    """Keeps what the encoder sees at every step, and the memory's tiles."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[Step, Tensor] = {}
        self.memory: dict[Step, list[tuple[int, int]]] = {}

    def after_forward(self, trainer: Any, **_: Any) -> None:
        step = (trainer.task, trainer.step)
        (self.seen[step],) = trainer.views
        if trainer.strategies:
            tiles = trainer.strategies[0].buffer.tiles
            self.memory[step] = [(task, int(i)) for task, kept in tiles for i in kept]


def views(method: str, *assignments: str, **changes: Any) -> Views:
    watch = Views()
    spec = recipe({"name": "mae"}, [{"name": "lump", **changes}] if method == "lump" else [])
    train(start(tiny_spec(spec, assignments=assignments), plugins=[watch]))
    return watch


@cache
def whole(tile: tuple[int, int]) -> Tensor:
    """Return a tile, resized by torch's own antialiased interpolation, in its archive's units."""
    store = tiny_stores(3)[tile[0]]
    pixels = torch.from_numpy(store.tiles[tile[1]]).permute(2, 0, 1)[None]
    image = F.interpolate(pixels, (16, 16), mode="bilinear", antialias=True)[0]
    mean, std = (torch.from_numpy(v)[:, None, None] for v in (store.mean, store.std))
    return ((image - mean) / std).float()


def found_in(view: Tensor, tiles: list[tuple[int, int]]) -> tuple[tuple[int, int], bool]:
    """Return the only tile that a view shows, and whether it is mirrored."""
    fits = [
        (tile, mirrored)
        for tile in tiles
        for mirrored in (False, True)
        if torch.allclose(view, whole(tile).flip(2) if mirrored else whole(tile), atol=1e-3)
    ]
    (fit,) = fits
    return fit


def test_the_recipe_is_data_mixup_to_the_last_bit() -> None:
    for seed in (0, 1):
        lump, mixup, plain = (
            train(start(tiny_spec(name, seed=seed)))
            for name in ("lump", "cosmae-data-mixup", "finetune")
        )
        for number in range(3):
            assert not differing(lump[number], mixup[number])
            assert bool(differing(lump[number], plain[number])) == (number > 0)


def test_both_are_augmented_apart_and_then_mixed() -> None:
    """Past views, solved from λ = 1/2, are tiles of the memory with mirrorings of their own."""
    mixed, plain = views("lump", *FLIPS, constant=0.5), views("finetune", *FLIPS)
    same = []
    for step, current in plain.seen.items():
        if step[0] == 0:
            continue
        past = 2 * mixed.seen[step] - current
        for old, new in zip(past, current, strict=True):
            (task, _), mirrored = found_in(old, mixed.memory[step])
            assert task < step[0]
            _, other = found_in(new, [(step[0], tile) for tile in range(16)])
            same.append(mirrored == other)
    assert len(same) == 8 * 8
    assert 16 < sum(same) < 48, "mirrored together, or never"


def test_crops_of_the_past_are_drawn_anew() -> None:
    mixed, plain = views("lump", constant=0.5), views("finetune")
    cropped = []
    for step, current in plain.seen.items():
        if step[0]:
            for old in 2 * mixed.seen[step] - current:
                tiles = [whole(tile) for tile in mixed.memory[step]]
                images = torch.stack([*tiles, *(tile.flip(2) for tile in tiles)])
                cropped.append(float((old - images).abs().amax(dim=(1, 2, 3)).min()) > 0.1)
    assert sum(cropped) > 48, "of 64; a crop may also be the whole tile"


def test_one_coefficient_per_batch() -> None:
    """Each image, solved for λ on its own, has that of its batch; batches have their own."""
    mixed, plain = views("lump", *FLIPS), views("finetune", *FLIPS)
    past = views("lump", *FLIPS, constant=0.0)
    found = []
    for step, current in plain.seen.items():
        if step[0] == 0:
            assert torch.equal(mixed.seen[step], current)
            continue
        weights = []
        for new, old, image in zip(current, past.seen[step], mixed.seen[step], strict=True):
            difference = (new - old).double()
            weight = float(((image - old).double() * difference).sum() / difference.square().sum())
            assert torch.allclose(image.double(), old + weight * difference, atol=1e-5)
            weights.append(weight)
        assert max(weights) - min(weights) < 1e-5
        assert 0 <= weights[0] <= 1
        found.append(round(weights[0], 4))
    assert len(set(found)) == 8


def test_target_is_the_mixed_image() -> None:
    """The loss, worked out patch by patch, is the error against the mixed image's pixels."""
    losses: list[tuple[float, float, float]] = []
    unmixed = views("finetune").seen

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def before_backward(self, trainer: Any, **_: Any) -> None:
            if trainer.task == 0:
                return
            step = (trainer.task, trainer.step)
            (mixed,), mae = trainer.views, trainer.model
            noise = torch.rand(8, 4, generator=torch_generator("cpu", 0, "objective", *step))
            keep, hidden = mae.split_tokens(noise)
            with torch.no_grad():
                predicted = mae.decode(mae.encoder(mixed, keep), keep, hidden)
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
    for number, image in enumerate(images):
        for place, token in enumerate(hidden[number]):
            row, column = divmod(int(token) - 1, 2)
            patch = image[:, 8 * row : 8 * row + 8, 8 * column : 8 * column + 8]
            target = patch.permute(1, 2, 0).flatten()
            total += float((predicted[number, place] - target).square().mean())
    return total / hidden.numel()


@pytest.mark.parametrize("change", [{"alpha": 1.0}, {"per_image": True}])
def test_options_change_the_encoder(change: dict[str, Any]) -> None:
    changed = recipe({"name": "mae"}, [{"name": "lump", **change}])
    one, other = (train(start(tiny_spec(m)), [0, 1]) for m in (changed, "lump"))
    assert not differing(one[0], other[0])
    assert any(name.startswith("encoder.") for name in differing(one[1], other[1]))
