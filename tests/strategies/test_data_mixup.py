"""Eq. 2 of CoSMAE, seen where the encoder sees it."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.engine.probing import normalisation_of
from rscl_bench.strategies.data_mixup import DataMixup, DataMixupParams
from rscl_bench.strategies.mixing import MixingParams, mixed
from rscl_bench.testing import start, tiny_spec, tiny_stores, train
from rscl_bench.testing.tiny import differing, recipe
from rscl_bench.tiles.loader import read_tiles
from rscl_bench.views.crops import normalised, resized_crops, whole_tiles

Step = tuple[int, int]


class Watch(BaseSGDPlugin):  # type: ignore[misc]
    """Keeps, by task and step, what the encoder sees and what was drawn from the buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[Step, Tensor] = {}
        self.past: dict[Step, Tensor] = {}

    def before_forward(self, trainer: Any, **_: Any) -> None:
        step = (trainer.task, trainer.step)
        (self.seen[step],) = (view.clone() for view in trainer.views)
        if trainer.task and trainer.strategies:
            drawn = trainer.strategies[0].buffer.draw(8, "data-mixup", *step)
            (self.past[step],) = trainer.views_of(drawn, "data-mixup")


def watched(seed: int = 0, views: tuple[str, ...] = (), **parameters: Any) -> Watch:
    watch = Watch()
    method = recipe({"name": "mae"}, [{"name": "data-mixup", **parameters}])
    train(start(tiny_spec(method, seed=seed, assignments=views), plugins=[watch]))
    return watch


def plain(seed: int = 0) -> Watch:
    watch = Watch()
    train(start(tiny_spec(seed=seed), plugins=[watch]))
    return watch


def coefficients(watch: Watch, current: Watch, step: Step) -> Tensor:
    """Solve x̃ = λ x + (1 − λ) x_b for the λ of each image, and check that it is one per image."""
    new, old, mixed = current.seen[step], watch.past[step], watch.seen[step]
    weight = ((mixed - old) * (new - old)).flatten(1).sum(1) / (new - old).square().flatten(1).sum(
        1
    )
    again = old + weight[:, None, None, None] * (new - old)
    assert torch.allclose(again, mixed, atol=1e-5)
    return weight


def test_lambda_weighs_the_current_image() -> None:
    constant, current = watched(constant=0.9), plain()
    for step in constant.past:
        expected = 0.9 * current.seen[step] + (1 - 0.9) * constant.past[step]
        assert torch.allclose(constant.seen[step], expected, atol=1e-6)


def test_one_coefficient_per_batch() -> None:
    watch, current = watched(), plain()
    assert len(watch.past) == 8  # two tasks of four steps
    params, found = DataMixupParams(), []
    for task, step in watch.past:
        weights = coefficients(watch, current, (task, step))
        (expected,) = params.draw(1, 0, "data-mixup", task, step)
        assert torch.allclose(weights, torch.full((8,), expected), atol=1e-5)
        found.append(expected)
    assert len(set(found)) == 8


def test_one_coefficient_per_image() -> None:
    watch, current = watched(per_image=True), plain()
    for step in watch.past:
        weights = coefficients(watch, current, step)
        expected = DataMixupParams().draw(8, 0, "data-mixup", *step)
        assert torch.allclose(weights, torch.tensor(expected), atol=1e-5)
        assert len(weights.unique()) == 8  # type: ignore[no-untyped-call]


def test_constant_one_is_no_mixup_to_the_last_bit() -> None:
    mixed = recipe({"name": "mae"}, [{"name": "data-mixup", "constant": 1.0}])
    for one, other in zip(train(start(tiny_spec(mixed))), train(start(tiny_spec())), strict=True):
        assert not differing(one, other)


def test_constant_zero_is_the_past_alone() -> None:
    watch = watched(constant=0.0)
    for step, past in watch.past.items():
        assert torch.equal(watch.seen[step], past)


def test_both_are_augmented_before_mixing() -> None:
    """The views mixed are crops of tiles, each by a draw of its own."""
    stores = tiny_stores(2)
    template = start(tiny_spec(tasks=2), stores)
    train(template, [0])
    indices = torch.arange(8)
    first, again, other = (
        template.views_of([(0, indices)], purpose)[0] for purpose in ("a", "a", "b")
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    crops = whole_tiles(8, 20, 20, torch.device("cpu"))
    whole = normalised(
        resized_crops(read_tiles(stores[0], indices.numpy()), crops, 16),
        normalisation_of(stores[0], template.protocol),
    )
    assert not torch.equal(first, whole)


def test_past_views_keep_the_order_asked_and_their_own_normalisation() -> None:
    stores = tiny_stores(3)
    fixed = ["views.min_scale=1.0", "views.horizontal_flip=0.0"]
    template = start(tiny_spec(assignments=fixed), stores)
    train(template, [0, 1, 2])
    asked = [(0, torch.tensor([3, 1])), (1, torch.tensor([5]))]
    (views,) = template.views_of(asked, "test")
    parts = [
        normalised(
            resized_crops(
                read_tiles(stores[task], indices.numpy()),
                whole_tiles(len(indices), 20, 20, torch.device("cpu")),
                16,
            ),
            normalisation_of(stores[task], template.protocol),
        )
        for task, indices in asked
    ]
    assert torch.allclose(views, torch.cat(parts), atol=1e-6)


def test_buffer_is_of_past_tasks_alone() -> None:
    tasks: list[tuple[int, list[int]]] = []

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def before_forward(self, trainer: Any, **_: Any) -> None:
            tasks.append((trainer.task, trainer.strategies[0].buffer.counts))

    method = recipe({"name": "mae"}, [{"name": "data-mixup"}])
    train(start(tiny_spec(method), plugins=[Look()]))
    assert dict(tasks) == {0: [], 1: [12], 2: [6, 6]}


@pytest.mark.parametrize(
    ("alpha", "distribution"), [(1.0, stats.uniform()), (0.4, stats.beta(0.4, 0.4))]
)
def test_distribution_of_the_coefficient(alpha: float, distribution: Any) -> None:
    params = MixingParams(alpha=alpha)
    at_once = params.draw(3000, 0, "test")
    by_step = [params.draw(1, 0, "test", 1, step)[0] for step in range(3000)]
    for values in (at_once, by_step):
        assert stats.kstest(values, distribution.cdf).pvalue > 1e-3
    assert np.corrcoef(by_step[1:], by_step[:-1])[0, 1] == pytest.approx(0, abs=0.06)


def test_coefficient_is_keyed() -> None:
    params = MixingParams()
    assert params.draw(3, 0, "a", 1) == params.draw(3, 0, "a", 1)
    others = [params.draw(3, 1, "a", 1), params.draw(3, 0, "b", 1), params.draw(3, 0, "a", 2)]
    for other in others:
        assert other != params.draw(3, 0, "a", 1)
    assert MixingParams(constant=0.5).draw(2, 0, "a") == [0.5, 0.5]


def test_data_and_model_mixup_draw_apart() -> None:
    template = start(tiny_spec("cosmae"))
    data, model = template.strategies
    assert isinstance(data, DataMixup)
    first = data.params.draw(1, 0, "data-mixup", 1, 0)
    assert first != model.params.draw(1, 0, "model-mixup", 1, 0)


def test_a_mixture_has_the_bands_of_both_images() -> None:
    """A band that one image lacks is the other's, times the other's share."""
    nan = torch.nan
    old = torch.tensor([[2.0, nan, 6.0, nan]]).view(1, 4, 1, 1)
    new = torch.tensor([[4.0, 8.0, nan, nan]]).view(1, 4, 1, 1)
    weight = torch.tensor(0.25)
    mixture = mixed(old, new, weight, bands_differ=True).flatten()
    assert mixture[:3].tolist() == [2.5, 2.0, 4.5]
    assert mixture[3].isnan()
    full = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert torch.equal(mixed(*full, weight, True), mixed(*full, weight, False))
