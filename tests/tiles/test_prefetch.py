import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from rscl_bench.testing.tiny import tiny_stores
from rscl_bench.tiles.loader import TaskTiles, TileLoader
from rscl_bench.tiles.prefetch import Prefetcher

CPU = torch.device("cpu")
TILES: list[TaskTiles] = [(0, torch.arange(16)), (1, torch.arange(7))]


def loader() -> TileLoader:
    return TileLoader(tiny_stores(2), TILES, 5, seed=0, task=1)


def same(fed: list[Any], read: list[Any]) -> None:
    assert len(fed) == len(read) > 0
    for part, (task, indices, tiles) in zip(fed, read, strict=True):
        assert part.task == task
        assert torch.equal(part.indices, indices)
        assert torch.equal(part.tiles, tiles)


def test_gives_what_the_loader_gives_in_every_epoch() -> None:
    feed, plain = Prefetcher(loader(), CPU), loader()
    assert len(feed) == len(plain) == 4
    for _ in range(3):
        fed, read = list(feed), list(plain)
        assert len(fed) == len(read)
        for one, other in zip(fed, read, strict=True):
            same(one, other)


def test_goes_on_where_it_is_told() -> None:
    feed, plain = Prefetcher(loader(), CPU), loader()
    feed.skip(6)
    whole = [*plain, *plain]
    for one, other in zip(feed, whole[6:], strict=True):
        same(one, other)


class Slow:
    """A loader whose batches come when they are let."""

    def __init__(self, batches: int) -> None:
        self.let, self.asked = threading.Semaphore(0), 0
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._batches):
            self.asked += 1
            if not self.let.acquire(timeout=20):
                raise TimeoutError
            yield [(0, torch.zeros(1, dtype=torch.long), torch.zeros(1))]


def feed_of(slow: Any) -> Prefetcher:
    return Prefetcher(slow, CPU)


def test_reads_one_batch_ahead_and_no_more() -> None:
    slow = Slow(4)
    slow.let.release()
    batches = iter(feed_of(slow))
    next(batches)  # the second is asked for while this one is used
    slow.let.release()
    while slow.asked < 2:
        pass
    next(batches)
    for _ in range(4):
        slow.let.release()
    assert len(list(batches)) == 2
    assert slow.asked == 4


def test_counts_the_time_of_waiting() -> None:
    slow = Slow(2)
    feed = feed_of(slow)
    threading.Timer(0.2, slow.let.release, [2]).start()
    assert len(list(feed)) == 2
    assert 0.1 < feed.waited < 15


def test_an_error_of_reading_is_raised_where_the_batch_is_wanted() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Any]:
            yield [(0, torch.zeros(1, dtype=torch.long), torch.zeros(1))]
            raise OSError("the disk is gone")

    batches = iter(feed_of(Broken()))
    next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_ends_its_thread_with_the_iteration() -> None:
    batches = iter(Prefetcher(loader(), CPU))
    next(batches)
    assert [t for t in threading.enumerate() if t.name.startswith("feed")]
    batches.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("feed")]
