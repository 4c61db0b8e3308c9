"""DER: replayed images against their features from the end of their task."""

import copy
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers.two_views import TwoViews
from torch import Tensor, nn

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.strategies.der import DER
from rscl_bench.testing import start, tiny_spec, tiny_stores, train
from rscl_bench.testing.tiny import State, differing, recipe
from rscl_bench.tiles.store import TileStore

Tile = tuple[int, int]


def whole(stores: Sequence[TileStore], tile: Tile, size: int = 16) -> Tensor:
    """Read one tile, resize it by torch's own antialiased interpolation, and normalise it."""
    store = stores[tile[0]]
    pixels = torch.from_numpy(store.tiles[tile[1]]).permute(2, 0, 1)[None]
    image = F.interpolate(pixels, (size, size), mode="bilinear", antialias=True)
    mean, std = (torch.from_numpy(v)[:, None, None] for v in (store.mean, store.std))
    return ((image - mean) / std).float()


@torch.no_grad()
def feature(encoder: nn.Module, image: Tensor) -> Tensor:
    tokens: Tensor = encoder(image)
    assert tokens.shape == (1, 1 + 4, 24)
    return tokens[0, 1:].mean(dim=0)


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Keeps the encoder at the end of every task, and sees each step and each memory."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders: list[nn.Module] = []
        self.memories: list[list[Tile]] = []
        self.counts: list[list[int]] = []
        self.steps: list[dict[str, Any]] = []

    def after_training_exp(self, trainer: Any, **_: Any) -> None:
        der = trainer.strategies[0]
        self.encoders.append(copy.deepcopy(trainer.model.encoder).eval())
        self.memories.append(
            [(task, int(index)) for task, kept in der.buffer.tiles for index in kept]
        )
        self.counts.append(der.buffer.counts)

    def before_backward(self, trainer: Any, **_: Any) -> None:
        der, encoder = trainer.strategies[0], trainer.model.encoder
        if not len(der.buffer):
            self.steps.append({"added": trainer.loss - trainer.mb_output.loss, "task": 0})
            return
        count = max(1, round(der.params.share * len(trainer.views[0])))
        drawn = der.buffer.draw(count, "der", trainer.task, trainer.step)
        tiles = [(task, int(index)) for task, indices in drawn for index in indices]
        (views,) = trainer.views_of(drawn, "der")
        added = trainer.loss.squeeze() - trainer.mb_output.loss
        expected = torch.zeros(())
        for tile, view in zip(tiles, views, strict=True):
            student = encoder(view[None])[0, 1:].mean(dim=0)
            stored = feature(self.encoders[tile[0]], whole(trainer.stores, tile))
            for one, other in zip(student, stored, strict=True):
                expected = expected + (one - other) ** 2 / (24 * count)
        weights = [p for p in encoder.parameters() if p.requires_grad]
        self.steps.append(
            {
                "task": trainer.task,
                "tiles": tiles,
                "views": views,
                "total": trainer.loss.detach().squeeze(),
                "objective": trainer.mb_output.loss.detach(),
                "expected": expected.detach(),
                "gradients": [
                    torch.autograd.grad(value, weights, retain_graph=True)
                    for value in (added, der.params.alpha * expected)
                ],
            }
        )


def watched(*assignments: str, **parameters: Any) -> tuple[Watch, DER, list[State]]:
    watch = Watch()
    method = recipe({"name": "mae"}, [{"name": "der", **parameters}])
    template = start(tiny_spec(method, assignments=assignments), plugins=[watch])
    states = train(template)
    (der,) = template.strategies
    assert isinstance(der, DER)
    return watch, der, states


def test_features_are_those_of_the_end_of_the_images_task() -> None:
    """Also where later tasks thinned the memory, and of the whole image."""
    stores = tiny_stores(3)
    watch = Watch()
    template = start(tiny_spec("der"), stores, plugins=[watch])
    for number in range(3):
        train(template, [number])
        (der,) = template.strategies
        assert isinstance(der, DER)
        tiles = watch.memories[number]
        assert {task for task, _ in tiles} == set(range(number + 1))
        stored = torch.cat(der.features)
        expected = torch.stack([feature(watch.encoders[t[0]], whole(stores, t)) for t in tiles])
        torch.testing.assert_close(stored, expected, atol=2e-5, rtol=0)
        apart = torch.cdist(expected, expected).fill_diagonal_(1.0)
        assert float(apart.min()) > 1e-2, "images that cannot be told apart prove nothing"
        if number:
            late = torch.stack([feature(watch.encoders[-1], whole(stores, t)) for t in tiles])
            old = torch.tensor([task < number for task, _ in tiles])
            assert float((late - stored)[old].abs().amax(dim=1).min()) > 1e-3


def test_each_image_gets_its_own_feature() -> None:
    _, der, _ = watched()
    kept = {
        (task, int(index)): der.features[task][place]
        for task, indices in der.buffer.tiles
        for place, index in enumerate(indices)
    }
    for step in range(5):
        drawn = der.buffer.draw(9, "test", step)
        tiles = [(task, int(index)) for task, indices in drawn for index in indices]
        assert tiles != sorted(tiles)
        expected = torch.stack([kept[tile] for tile in tiles])
        assert torch.equal(der.stored_features(drawn), expected)


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_alpha_times_the_squared_error_is_added(alpha: float) -> None:
    watch, _, _ = watched(alpha=alpha)
    distilled = [step for step in watch.steps if step["task"]]
    assert len(distilled) == 8
    for step in distilled:
        total = float(step["objective"]) + alpha * float(step["expected"])
        assert float(step["total"]) == pytest.approx(total, rel=1e-5)
        assert float(step["expected"]) > 1e-3


def test_gradient_is_that_of_the_students_side() -> None:
    watch, _, _ = watched()
    for step in watch.steps:
        if step["task"]:
            added, expected = (torch.cat([g.flatten() for g in side]) for side in step["gradients"])
            assert float(expected.norm()) > 1e-3
            torch.testing.assert_close(added, expected, atol=1e-5, rtol=1e-3)


def test_replayed_views_are_augmented_anew() -> None:
    stores = tiny_stores(3)
    watch, _, _ = watched()
    seen: dict[Tile, list[Tensor]] = {}
    for step in watch.steps:
        for tile, view in zip(step.get("tiles", []), step.get("views", []), strict=True):
            assert not torch.allclose(view, whole(stores, tile)[0], atol=1e-3)
            seen.setdefault(tile, []).append(view)
    again = [views for views in seen.values() if len(views) > 1]
    assert again
    assert not any(torch.equal(views[0], views[1]) for views in again)


def test_memory_has_equal_counts_of_past_tasks() -> None:
    watch, _, _ = watched()
    assert watch.counts == [[12], [6, 6], [4, 4, 4]]
    for step in watch.steps:
        assert all(task < step["task"] for task, _ in step.get("tiles", []))


@pytest.mark.parametrize(("share", "images"), [(0.01, 1), (0.25, 2), (0.5, 4), (1.0, 8)])
def test_share_is_the_number_of_images(
    share: float, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    views_of = SelfSupervisedTrainer.views_of

    def spy(self: SelfSupervisedTrainer, tiles: Any, purpose: str) -> list[Tensor]:
        asked.append(sum(len(indices) for _, indices in tiles))
        return views_of(self, tiles, purpose)

    monkeypatch.setattr(SelfSupervisedTrainer, "views_of", spy)
    method = recipe({"name": "mae"}, [{"name": "der", "share": share}])
    train(start(tiny_spec(method)), [0, 1])
    assert asked == [images] * 4


def test_alpha_and_share_change_the_encoder_from_the_second_task_on() -> None:
    ends = [watched(**one)[2] for one in ({}, {"alpha": 1.0}, {"share": 1.0})]
    ends.append(train(start(tiny_spec())))
    for number, one in enumerate(ends):
        for other in ends[:number]:
            assert not differing(one[0], other[0])
            changed = differing(one[1], other[1])
            assert any(name.startswith("encoder.") for name in changed)


def test_memory_smaller_than_the_number_of_tasks() -> None:
    watch, der, _ = watched("buffer_size=1")
    assert watch.counts == [[1], [0, 1], [0, 0, 1]]
    assert [tuple(features.shape) for features in der.features] == [(0, 24), (0, 24), (1, 24)]


def test_pixels_are_fp32_under_autocast() -> None:
    """The student's image must not be coarser than the one of the stored feature."""
    template = start(tiny_spec("der"))
    train(template, [0])
    tiles = [(0, torch.arange(8))]
    plain = template.views_of(tiles, "test")[0]
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(template.views_of(tiles, "test")[0], plain)


def test_two_views_are_averaged() -> None:
    found: list[tuple[Tensor, Tensor]] = []

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def before_backward(self, trainer: Any, **_: Any) -> None:
            if trainer.task == 0:
                return
            (der,) = trainer.strategies
            drawn = der.buffer.draw(2, "der", trainer.task, trainer.step)
            stored = der.stored_features(drawn)
            errors = [
                (trainer.model.encoder(view)[:, 1:].mean(dim=1) - stored).square().mean()
                for view in trainer.views_of(drawn, "der")
            ]
            added = trainer.loss.squeeze() - trainer.mb_output.loss
            found.append((added.detach(), 0.4 * (errors[0] + errors[1]).detach() / 2))

    spec = tiny_spec("der", tasks=2)
    objective = TwoViews(start(spec).model.encoder)
    train(start(spec, objective=objective, plugins=[Look()]))
    assert len(found) == 4
    for added, expected in found:
        assert float(added) == pytest.approx(float(expected), rel=1e-4)
