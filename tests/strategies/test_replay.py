"""Experience replay, seen where the encoder sees it."""

from collections import Counter
from typing import Any

import torch
from helpers.replay import WHOLE, Watch, owners
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.spec import RunSpec
from rscl_bench.testing import start, tiny_spec, tiny_stores, train
from rscl_bench.testing.tiny import differing, recipe

MODES = ("concat", "batch")


def replay(mode: str, *assignments: str, **settings: Any) -> RunSpec:
    method = recipe({"name": "mae"}, [{"name": "replay", "mode": mode}])
    return tiny_spec(method, assignments=assignments, **settings)


def seen(mode: str, tiles: int) -> tuple[Any, dict[int, list[list[tuple[int, int]]]]]:
    """Return the template after three tasks, and the tiles of every step by task."""
    stores, watch = tiny_stores(3, tiles=tiles, size=16), Watch()
    template = start(replay(mode, *WHOLE), stores, [watch])
    train(template)
    steps = {
        task: [owners(views, stores) for views in several] for task, several in watch.views.items()
    }
    return template, steps


def kept_tiles(template: Any) -> set[tuple[int, int]]:
    tiles = template.strategies[0].buffer.tiles
    return {(task, index) for task, indices in tiles for index in indices.tolist()}


def test_concat_trains_on_the_union() -> None:
    """Task and memory have 20 + 12 tiles, four batches without a rest: every one once an epoch."""
    template, steps = seen("concat", 20)
    assert template.steps_taken == [2 * (20 // 8), 2 * 4, 2 * 4]
    for task in (1, 2):
        memories = []
        for epoch in (steps[task][:4], steps[task][4:]):
            tiles = [place for step in epoch for place in step]
            assert len(set(tiles)) == len(tiles) == 32
            current = {index for owner, index in tiles if owner == task}
            assert current == set(range(20))
            past = Counter(owner for owner, _ in tiles if owner != task)
            assert past == ({0: 12} if task == 1 else {0: 6, 1: 6})
            memories.append({place for place in tiles if place[0] != task})
        assert memories[0] == memories[1]


def test_concat_trains_on_the_tiles_of_the_memory() -> None:
    stores, watch = tiny_stores(2, tiles=20, size=16), Watch()
    template = start(replay("concat", *WHOLE, tasks=2), stores, [watch])
    train(template, [0])
    memory = kept_tiles(template)
    train(template, [1])
    trained = {place for views in watch.views[1] for place in owners(views, stores)}
    assert {place for place in trained if place[0] == 0} == memory


def test_concat_drops_the_rest_of_the_union() -> None:
    template = start(replay("concat"), tiny_stores(3, tiles=21))
    train(template)
    assert template.steps_taken == [2 * (21 // 8), 2 * ((21 + 12) // 8), 2 * ((21 + 12) // 8)]


def test_batch_adds_as_many_images_of_past_tasks() -> None:
    template, steps = seen("batch", 20)
    assert template.steps_taken == [4, 4, 4]
    for task, several in steps.items():
        for tiles in several:
            assert [owner for owner, _ in tiles[:8]] == [task] * 8
            past = tiles[8:]
            assert len(set(past)) == len(past) == (8 if task else 0)
            assert all(owner < task for owner, _ in past)
    for task in (1, 2):  # each step has a draw of its own
        draws = {tuple(sorted(tiles[8:])) for tiles in steps[task]}
        assert len(draws) == 4
    assert {owner for tiles in steps[2] for owner, _ in tiles[8:]} == {0, 1}


def test_batch_repeats_a_memory_that_is_smaller_than_a_batch() -> None:
    stores, watch = tiny_stores(2, size=16), Watch()
    template = start(replay("batch", *WHOLE, "buffer_size=3", tasks=2), stores, [watch])
    train(template, [0])
    memory = kept_tiles(template)
    train(template, [1])
    for views in watch.views[1]:
        assert sorted(Counter(owners(views[8:], stores)).values()) == [2, 3, 3]
        assert set(owners(views[8:], stores)) == memory


def test_current_half_is_what_fine_tuning_sees() -> None:
    with_memory, plain = Watch(), Watch()
    train(start(replay("batch"), plugins=[with_memory]))
    train(start(tiny_spec(), plugins=[plain]))
    for task, several in plain.views.items():
        for mine, theirs in zip(with_memory.views[task], several, strict=True):
            assert torch.equal(mine[:8], theirs)
            assert len(mine) == (16 if task else 8)


def test_loss_is_the_mean_over_both_halves() -> None:
    """The objective sees one batch of twice the size: no weight between current and past images."""
    losses: list[tuple[Tensor, Tensor]] = []

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def before_backward(self, trainer: Any, **_: Any) -> None:
            losses.append((trainer.loss.detach().squeeze(), trainer.mb_output.loss.detach()))
            assert len(trainer.mb_output.encoded[0]) == (16 if trainer.task else 8)

    train(start(replay("batch"), plugins=[Look()]))
    assert len(losses) == 12
    for total, objective in losses:
        assert torch.equal(total, objective)


def test_modes_differ() -> None:
    concat, batch = (train(start(replay(mode))) for mode in MODES)
    assert differing(concat[1], batch[1])
