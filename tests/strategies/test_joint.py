"""Joint training: all tasks at once in place of the first, then nothing."""

from typing import Any

import pytest
from helpers.replay import WHOLE, Watch, owners

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.models.optimiser import learning_rate
from rscl_bench.testing import start, tiny_spec, tiny_stores, train
from rscl_bench.testing.tiny import differing


def test_first_task_sees_every_tile_of_all_tasks_once_an_epoch() -> None:
    stores, watch = tiny_stores(3, size=16), Watch()
    train(start(tiny_spec("joint", assignments=WHOLE), stores, [watch]))
    assert set(watch.views) == {0}
    steps = [owners(views, stores) for views in watch.views[0]]
    assert len(steps) == 2 * 6
    for epoch in (steps[:6], steps[6:]):
        tiles = [place for step in epoch for place in step]
        assert sorted(tiles) == [(task, index) for task in range(3) for index in range(16)]
    mixed = [len({task for task, _ in step}) for step in steps]
    assert min(mixed) > 1  # not one task after the other
    assert steps[:6] != steps[6:]


@pytest.mark.parametrize("tiles", [16, 21, 23])
def test_as_many_images_as_the_stream_but_for_the_rest_of_each_epoch(tiles: int) -> None:
    counts = []
    for method in ("joint", "finetune"):
        template = start(tiny_spec(method), tiny_stores(3, tiles=tiles))
        train(template)
        counts.append(8 * sum(template.steps_taken))
    joint, stream = counts
    epochs = 2
    assert 0 <= epochs * 3 * tiles - joint < epochs * 8
    assert 0 <= joint - stream < epochs * 3 * 8


def test_nothing_is_trained_afterwards() -> None:
    template = start(tiny_spec("joint"))
    first, second, third = train(template)
    assert not differing(first, second)
    assert not differing(first, third)
    assert template.steps_taken == [12, 0, 0]
    assert template.final_loss[0] is not None
    assert template.final_loss[1:] == [None, None]


def test_one_optimiser_and_one_schedule() -> None:
    rates: list[float] = []
    optimisers = set()

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def after_update(self, trainer: Any, **_: Any) -> None:
            rates.extend({group["lr"] for group in trainer.optimizer.param_groups})
            optimisers.add(trainer.optimizer)

    train(start(tiny_spec("joint"), plugins=[Look()]))
    assert len(optimisers) == 1
    assert rates == [learning_rate(step, 12, 3, 1e-3) for step in range(12)]


def test_differs_from_the_stream() -> None:
    joint, stream = train(start(tiny_spec("joint"))), train(start(tiny_spec()))
    for one, other in zip(joint, stream, strict=True):
        assert any(name.startswith("encoder.") for name in differing(one, other))
