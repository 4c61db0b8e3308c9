import numpy as np
import torch

from rscl_bench.engine.stream import Tiles, make_stream
from rscl_bench.randomness import numpy_generator
from rscl_bench.testing import tiny_stores
from rscl_bench.tiles.loader import TaskTiles, TileLoader, read_tiles
from rscl_bench.tiles.store import TileStore


def whole(stores: list[TileStore], batch_size: int, seed: int, task: int) -> TileLoader:
    """Return a loader of all tiles of one task."""
    tiles = [(task, torch.arange(len(stores[task])))]
    return TileLoader(stores, tiles, batch_size, seed, task)


def batches(loader: TileLoader) -> torch.Tensor:
    """Return one epoch of a loader of one task's tiles, ``[steps, B, H, W, C]``."""
    steps = []
    for ((_, _, tiles),) in loader:
        steps.append(tiles)
    return torch.stack(steps)


def places(
    stores: list[TileStore], batch: list[tuple[int, torch.Tensor, torch.Tensor]]
) -> list[tuple[int, int]]:
    """Return task and index of every tile of a batch, found in the task's store by its pixels."""
    found = []
    for task, indices, tiles in batch:
        for index, tile in zip(indices.tolist(), tiles.numpy(), strict=True):
            same = np.flatnonzero((stores[task].tiles == tile).all(axis=(1, 2, 3)))
            assert same.tolist() == [index]
            found.append((task, int(same[0])))
    return found


def test_experiences_are_the_tasks_and_show_no_labels() -> None:
    stores = tiny_stores(3, tiles=5)
    stream = make_stream(stores).streams["train"]
    assert [experience.current_experience for experience in stream] == [0, 1, 2]
    for experience, store in zip(stream, stores, strict=True):
        dataset = experience.dataset
        assert list(dataset.tile_index) == [0, 1, 2, 3, 4]
        assert not hasattr(dataset, "targets")
        # Avalanche may append the task's label; what is ours comes first.
        tile, index = dataset[3][:2]
        assert index == 3
        assert np.array_equal(tile.numpy(), store.tiles[3])


def test_items_are_tuples() -> None:
    tiles = Tiles(tiny_stores(1, dtype="uint16")[0])
    assert len(tiles) == 16
    assert isinstance(tiles[2], tuple)
    assert tiles[2][0].dtype == torch.uint16
    assert tiles[2][0].shape == (20, 20, 3)


def test_reading_by_index_keeps_order_and_repeats() -> None:
    store = tiny_stores(1)[0]
    read = read_tiles(store, np.array([3, 0, 3]))
    assert np.array_equal(read.numpy(), store.tiles[[3, 0, 3]])


def test_epoch_has_every_tile_at_most_once_and_drops_the_rest() -> None:
    stores = tiny_stores(1, tiles=19)
    loader = whole(stores, 4, seed=0, task=0)
    assert len(loader) == 4
    steps = [places(stores, batch) for batch in loader]
    assert [len(step) for step in steps] == [4] * 4
    found = [index for step in steps for _, index in step]
    assert len(set(found)) == 16
    assert found != sorted(found)


def test_batches_of_one_task_are_a_keyed_permutation_cut_in_order() -> None:
    """The order equals that of runs of version 0.2.0."""
    stores = tiny_stores(2, tiles=19)
    loader = whole(stores, 4, seed=5, task=1)
    for epoch in range(3):
        order = numpy_generator(5, "order", 1, epoch).permutation(19)[:16]
        expected = torch.from_numpy(stores[1].tiles[order])
        assert torch.equal(batches(loader).flatten(0, 1), expected)


def test_order_is_a_function_of_seed_task_and_epoch() -> None:
    stores = tiny_stores(1) * 2
    first = whole(stores, 8, seed=0, task=0)
    epochs = [batches(first), batches(first)]
    again = whole(stores, 8, seed=0, task=0)
    assert torch.equal(batches(again), epochs[0])
    assert torch.equal(batches(again), epochs[1])
    others = [whole(stores, 8, seed=1, task=0), whole(stores, 8, seed=0, task=1)]
    for different in (epochs[1], *map(batches, others)):
        assert not torch.equal(epochs[0], different)


def test_dropped_tiles_come_in_other_epochs() -> None:
    loader = whole(tiny_stores(1, tiles=9), 8, seed=0, task=0)
    sums = {int(tile.sum(dtype=torch.int64)) for _ in range(12) for tile in batches(loader)[0]}
    assert len(sums) == 9


# Tiles of several tasks

UNION: list[TaskTiles] = [
    (2, torch.arange(16)),
    (0, torch.tensor([7, 3, 12])),
    (1, torch.tensor([0, 15])),
]


def test_several_tasks_share_an_epoch() -> None:
    """An epoch has 20 of 21 tiles, once each, and every tile comes from the store of its owner."""
    stores = tiny_stores(3)
    loader = TileLoader(stores, UNION, 5, seed=0, task=2)
    union = {(task, int(index)) for task, indices in UNION for index in indices}
    assert len(loader) == 4
    left_out = set()
    for _ in range(30):
        steps = [places(stores, batch) for batch in loader]
        assert [len(step) for step in steps] == [5] * 4
        read = [place for step in steps for place in step]
        assert len(set(read)) == 20
        assert set(read) < union
        left_out |= union - set(read)
    assert len(left_out) > 10  # no owner is always whole


def test_owners_keep_their_order_and_absent_owners_are_left_out() -> None:
    loader = TileLoader(tiny_stores(3), UNION, 5, seed=0, task=2)
    seen = set()
    for _ in range(5):
        for batch in loader:
            owners = [task for task, _, _ in batch]
            assert owners == [task for task in (2, 0, 1) if task in owners]
            assert all(len(tiles) == len(indices) > 0 for _, indices, tiles in batch)
            seen.add(tuple(owners))
    assert len(seen) > 1


def test_order_of_several_tasks_is_keyed() -> None:
    def epochs(seed: int, task: int) -> list[list[list[tuple[int, int]]]]:
        stores = tiny_stores(3)
        loader = TileLoader(stores, UNION, 5, seed, task)
        return [[places(stores, batch) for batch in loader] for _ in range(2)]

    first = epochs(0, 2)
    assert epochs(0, 2) == first
    for other in (first[::-1], epochs(1, 2), epochs(0, 1)):
        assert other[0] != first[0]


def test_tiles_of_other_sizes_and_types_share_a_batch() -> None:
    stores = [tiny_stores(1, size=20)[0], tiny_stores(2, size=24, dtype="uint16")[1]]
    tiles = [(0, torch.arange(16)), (1, torch.arange(16))]
    for batch in TileLoader(stores, tiles, 16, seed=0, task=1):
        shapes = {task: (part.dtype, tuple(part.shape[1:])) for task, _, part in batch}
        assert shapes == {0: (torch.uint8, (20, 20, 3)), 1: (torch.uint16, (24, 24, 3))}


def test_too_few_tiles_make_no_step() -> None:
    few: list[list[TaskTiles]] = [[], [(0, torch.arange(0))], [(0, torch.arange(3))]]
    for tiles in few:
        loader = TileLoader(tiny_stores(1), tiles, 4, seed=0, task=0)
        assert len(loader) == 0
        assert list(loader) == []
