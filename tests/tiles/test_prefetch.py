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


def assert_equal(batch: list[Any], expected: list[Any]) -> None:
    assert len(batch) == len(expected) > 0
    for part, (task, indices, tiles) in zip(batch, expected, strict=True):
        assert part.task == task
        assert torch.equal(part.indices, indices)
        assert torch.equal(part.tiles, tiles)


def test_every_epoch_has_the_loaders_batches() -> None:
    prefetcher, plain = Prefetcher(loader(), CPU), loader()
    assert len(prefetcher) == len(plain) == 4
    for _ in range(3):
        for batch, expected in zip(prefetcher, plain, strict=True):
            assert_equal(batch, expected)


def test_skips_ahead_over_epochs() -> None:
    prefetcher, plain = Prefetcher(loader(), CPU), loader()
    prefetcher.skip(6)
    two_epochs = [*plain, *plain]
    for batch, expected in zip(prefetcher, two_epochs[6:], strict=True):
        assert_equal(batch, expected)


class Slow:
    """A loader that reads one batch for each release of ``allowed``."""

    def __init__(self, batches: int) -> None:
        self.allowed, self.requested = threading.Semaphore(0), 0
        self._batches = batches

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self._batches):
            self.requested += 1
            if not self.allowed.acquire(timeout=20):
                raise TimeoutError
            yield [(0, torch.zeros(1, dtype=torch.long), torch.zeros(1))]


def prefetcher_of(slow: Any) -> Prefetcher:
    return Prefetcher(slow, CPU)


def test_reads_one_batch_ahead_and_no_more() -> None:
    slow = Slow(4)
    slow.allowed.release()
    batches = iter(prefetcher_of(slow))
    next(batches)  # The thread requests the second batch meanwhile.
    slow.allowed.release()
    while slow.requested < 2:
        pass
    next(batches)
    for _ in range(4):
        slow.allowed.release()
    assert len(list(batches)) == 2
    assert slow.requested == 4


def test_measures_the_time_that_training_waits() -> None:
    slow = Slow(2)
    prefetcher = prefetcher_of(slow)
    threading.Timer(0.2, slow.allowed.release, [2]).start()
    assert len(list(prefetcher)) == 2
    assert 0.1 < prefetcher.waited < 15


def test_a_reading_error_is_raised_by_the_next_batch() -> None:
    class Broken:
        def __iter__(self) -> Iterator[Any]:
            yield [(0, torch.zeros(1, dtype=torch.long), torch.zeros(1))]
            raise OSError("the disk is gone")

    batches = iter(prefetcher_of(Broken()))
    next(batches)
    with pytest.raises(OSError, match="the disk is gone"):
        next(batches)


def test_thread_ends_with_the_iteration() -> None:
    batches = iter(Prefetcher(loader(), CPU))
    next(batches)
    assert [t for t in threading.enumerate() if t.name.startswith("prefetch")]
    batches.close()  # type: ignore[attr-defined]
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
