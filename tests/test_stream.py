import numpy as np
import torch

from rscl_bench.data.stream import TileLoader, Tiles, make_stream, read_tiles
from rscl_bench.testing import tiny_stores


def batches(loader: TileLoader) -> torch.Tensor:
    return torch.stack(list(loader))


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


def test_an_epoch_has_every_tile_at_most_once_and_drops_the_rest() -> None:
    store = tiny_stores(1, tiles=19)[0]
    loader = TileLoader(store, 4, seed=0, task=0)
    assert len(loader) == 4
    read = batches(loader).flatten(0, 1).numpy()
    assert read.shape == (16, 20, 20, 3)
    found = [int(np.flatnonzero((store.tiles == tile).all(axis=(1, 2, 3)))[0]) for tile in read]
    assert len(set(found)) == 16
    assert found != sorted(found)


def test_order_is_a_function_of_seed_task_and_epoch() -> None:
    store = tiny_stores(1)[0]
    first = TileLoader(store, 8, seed=0, task=0)
    epochs = [batches(first), batches(first)]
    again = TileLoader(store, 8, seed=0, task=0)
    assert torch.equal(batches(again), epochs[0])
    assert torch.equal(batches(again), epochs[1])
    others = [TileLoader(store, 8, seed=1, task=0), TileLoader(store, 8, seed=0, task=1)]
    for different in (epochs[1], *map(batches, others)):
        assert not torch.equal(epochs[0], different)


def test_dropped_tiles_come_in_other_epochs() -> None:
    loader = TileLoader(tiny_stores(1, tiles=9)[0], 8, seed=0, task=0)
    sums = {int(tile.sum(dtype=torch.int64)) for _ in range(12) for tile in batches(loader)[0]}
    assert len(sums) == 9
