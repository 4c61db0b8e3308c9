import numpy as np
import pytest
import torch
from scipy import stats

from rscl_bench.avalanche_api import BaseSGDPlugin, ExperienceBalancedBuffer
from rscl_bench.engine.stream import make_stream
from rscl_bench.strategies.buffer import TileBuffer, balanced_counts
from rscl_bench.testing import start, tiny_spec, tiny_stores, train


def filled(size: int, tiles: list[int], seed: int = 0) -> list[TileBuffer]:
    """Return the buffer as it stands after each task."""
    stores = [tiny_stores(1, tiles=count, size=4)[0] for count in tiles]
    buffer, states = TileBuffer(size, seed), []
    for experience in make_stream(stores).streams["train"]:
        buffer.add(experience)
        copy = TileBuffer(size, seed)
        copy.load_state_dict(buffer.state_dict())
        states.append(copy)
    return states


def kept(buffer: TileBuffer) -> list[list[int]]:
    return [indices.tolist() for indices in buffer.state_dict().values()]


def test_equal_counts_after_every_task() -> None:
    for task, buffer in enumerate(filled(10, [40, 30, 50, 20]), start=1):
        assert sum(buffer.counts) == len(buffer) == 10
        assert len(buffer.counts) == task
        assert max(buffer.counts) - min(buffer.counts) <= 1
        for indices, tiles in zip(kept(buffer), [40, 30, 50, 20], strict=False):
            assert len(set(indices)) == len(indices)
            assert 0 <= min(indices) <= max(indices) < tiles


def test_first_tasks_take_the_rest() -> None:
    assert [buffer.counts for buffer in filled(11, [20, 20, 20])] == [[11], [6, 5], [4, 4, 3]]


def test_task_smaller_than_its_part_is_kept_whole() -> None:
    buffers = filled(10, [3, 20])
    assert [buffer.counts for buffer in buffers] == [[3], [3, 7]]
    assert sorted(kept(buffers[0])[0]) == [0, 1, 2]


def test_room_that_small_tasks_leave_is_used() -> None:
    assert [buffer.counts for buffer in filled(10, [20, 20, 2])][-1] == [4, 4, 2]
    # The second task had shrunk to 5 before the third came, and gets nothing back.
    assert [buffer.counts for buffer in filled(11, [20, 20, 1, 1])] == [
        [11],
        [6, 5],
        [5, 5, 1],
        [5, 4, 1, 1],
    ]
    assert [buffer.counts for buffer in filled(10, [2, 3])][-1] == [2, 3]


@pytest.mark.parametrize("size", [7, 12, 200, 1000])
@pytest.mark.parametrize("tasks", [1, 2, 3, 4, 7])
def test_counts_are_avalanches_where_every_task_fills_its_part(size: int, tasks: int) -> None:
    avalanche = ExperienceBalancedBuffer(size).get_group_lengths(tasks)
    assert balanced_counts(size, avalanche) == avalanche
    assert balanced_counts(size, [size] * tasks) == avalanche


def test_counts_against_handing_out_places_one_by_one() -> None:
    """In turns over the tasks that still have tiles; only the remainder's order may differ."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        available = [int(n) for n in rng.integers(1, 12, rng.integers(1, 6))]
        size = int(rng.integers(len(available), 40))
        turns = [0] * len(available)
        while sum(turns) < min(size, sum(available)):
            for task, tiles in enumerate(available):
                if turns[task] < tiles and sum(turns) < size:
                    turns[task] += 1
        counts = balanced_counts(size, available)
        assert sum(counts) == sum(turns)
        assert all(count <= tiles for count, tiles in zip(counts, available, strict=True))
        assert sorted(counts) == sorted(turns)


def test_thinning_keeps_some_of_what_was_kept() -> None:
    first, second, third = (kept(buffer) for buffer in filled(12, [40, 40, 40]))
    assert set(third[0]) < set(second[0]) < set(first[0])
    assert set(third[1]) < set(second[1])


def test_every_tile_is_kept_as_often() -> None:
    tiles, seeds = 12, 300
    counts = np.zeros((2, tiles))
    stores = [tiny_stores(1, tiles=tiles, size=4)[0]] * 2
    experiences = list(make_stream(stores).streams["train"])
    for seed in range(seeds):
        buffer = TileBuffer(6, seed)
        for experience in experiences:
            buffer.add(experience)
        for task, indices in enumerate(kept(buffer)):
            counts[task, indices] += 1
    assert counts.sum() == 6 * seeds
    for row in counts:  # of the task that was thinned, and of the new one
        expected = np.full(tiles, 3 * seeds / tiles)
        assert stats.chisquare(row, expected).pvalue > 1e-3


def test_choice_is_a_function_of_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = kept(filled(10, [40, 40])[1])
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    again = kept(filled(10, [40, 40])[1])
    assert torch.equal(torch.random.get_rng_state(), before)
    assert again == first
    assert kept(filled(10, [40, 40], seed=1)[1]) != first
    assert first[0] != first[1]  # tasks do not share their choice


def test_draws_are_from_the_buffer() -> None:
    buffer = filled(10, [40, 40, 40])[2]
    drawn = buffer.draw(6, "test", 0)
    assert sum(len(indices) for _, indices in drawn) == 6
    held = kept(buffer)
    for task, indices in drawn:
        assert indices.dtype == torch.long
        assert set(indices.tolist()) <= set(held[task])
        assert len(set(indices.tolist())) == len(indices)


def test_tiles_are_what_is_kept() -> None:
    buffer = filled(10, [40, 40, 40])[2]
    assert [(task, indices.tolist()) for task, indices in buffer.tiles] == list(
        enumerate(kept(buffer))
    )
    assert TileBuffer(10, 0).tiles == []


def flat(drawn: list[tuple[int, torch.Tensor]]) -> list[tuple[int, int]]:
    return [(task, index) for task, indices in drawn for index in indices.tolist()]


def test_no_repeats_as_long_as_they_last() -> None:
    buffer = filled(10, [40, 40])[1]
    assert len(set(flat(buffer.draw(10, "all")))) == 10
    repeats = np.unique(flat(buffer.draw(25, "more")), axis=0, return_counts=True)[1]
    assert len(repeats) == 10
    assert set(repeats) == {2, 3}


def test_draws_are_uniform_and_keyed() -> None:
    buffer = filled(9, [40, 40])[1]
    everything = [pair for step in range(400) for pair in flat(buffer.draw(3, "t", step))]
    counts = np.unique(everything, axis=0, return_counts=True)[1]
    assert len(counts) == 9
    assert stats.chisquare(counts).pvalue > 1e-3
    assert flat(buffer.draw(3, "t", 5)) == flat(buffer.draw(3, "t", 5))
    assert len({tuple(flat(buffer.draw(3, "t", step))) for step in range(10)}) > 5


def test_state_restores_draws_and_thinning() -> None:
    stores = [tiny_stores(1, tiles=30, size=4)[0]] * 4
    experiences = list(make_stream(stores).streams["train"])
    whole = TileBuffer(11, 0)
    for experience in experiences[:2]:
        whole.add(experience)
    restored = TileBuffer(11, 0)
    restored.load_state_dict({name: value.clone() for name, value in whole.state_dict().items()})
    assert flat(restored.draw(8, "x")) == flat(whole.draw(8, "x"))
    for experience in experiences[2:]:
        for buffer in (whole, restored):
            buffer.add(experience)
        assert kept(restored) == kept(whole)
        assert restored.counts == whole.counts


def test_buffer_of_a_run_after_every_task() -> None:
    counts = []

    class Look(BaseSGDPlugin):  # type: ignore[misc]
        def after_training_exp(self, strategy: object, **_: object) -> None:
            counts.append(template.strategies[0].buffer.counts)

    template = start(tiny_spec("cosmae"), plugins=[Look()])
    train(template)
    assert counts == [[12], [6, 6], [4, 4, 4]]


def test_size_is_the_protocols() -> None:
    template = start(tiny_spec("cosmae", assignments=["buffer_size=5"]))
    train(template, [0])
    assert template.strategies[0].buffer.counts == [5]


def test_empty_state() -> None:
    buffer = TileBuffer(5, 0)
    assert len(buffer) == 0
    assert buffer.counts == []
    assert buffer.state_dict() == {}
    buffer.load_state_dict({})
    assert len(buffer) == 0


@pytest.mark.parametrize("tasks", [2, 4])
def test_fewer_places_than_tasks(tasks: int) -> None:
    buffer = filled(1, [6] * tasks)[-1]
    assert buffer.counts == [0] * (tasks - 1) + [1], "the newest stays"
    last = tasks - 1
    assert flat(buffer.draw(2, "x")) == [(last, kept(buffer)[last][0])] * 2
    assert filled(2, [6] * 5)[-1].counts == [0, 0, 0, 1, 1]
