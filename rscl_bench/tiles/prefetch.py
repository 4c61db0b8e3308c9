"""Batches that are read one ahead, and are on their way to a GPU while it computes."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from rscl_bench.tiles.loader import TileLoader


class Part(NamedTuple):
    """The tiles of a batch that are of one task.

    Attributes:
        task: The task's number.
        indices: Into its tiles, ``[n]`` int64, on the CPU.
        tiles: ``[n, H, W, C]``, raw, on the feed's device.
    """

    task: int
    indices: Tensor
    tiles: Tensor


class Prefetcher:
    """A loader's batches, the next one read by a thread and copied by a stream of its own.

    Attributes:
        waited: Seconds that were waited for batches so far. On a GPU its own waiting for a copy is
            not among them.
    """

    def __init__(self, loader: TileLoader, device: torch.device):
        self._loader, self._device = loader, device
        self._copies: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.waited = 0.0

    def __len__(self) -> int:
        """Return the number of steps of an epoch."""
        return len(self._loader)

    def skip(self, steps: int) -> None:
        """Go on as after so many steps of all epochs."""
        self._loader.skip(steps)

    def __iter__(self) -> Iterator[list[Part]]:
        """Yield the batches of the next epoch."""
        batches = self._moved()
        with ThreadPoolExecutor(1, "feed") as thread:
            coming = thread.submit(next, batches, None)
            while True:
                started = time.perf_counter()
                found = coming.result()
                self.waited += time.perf_counter() - started
                if found is None:
                    return
                coming = thread.submit(next, batches, None)
                batch, copied = found
                if copied is not None:
                    self._take_over(batch, copied)
                yield batch

    def _moved(self) -> Iterator[tuple[list[Part], torch.cuda.Event | None]]:
        for batch in self._loader:
            if self._copies is None:
                yield [Part(*part) for part in batch], None
                continue
            with torch.cuda.stream(self._copies):
                moved = [
                    Part(task, indices, raw.pin_memory().to(self._device, non_blocking=True))
                    for task, indices, raw in batch
                ]
            yield moved, self._copies.record_event()

    def _take_over(self, batch: list[Part], copied: torch.cuda.Event) -> None:
        """Let the stream that computes wait for a batch's copy, and own its memory from then on."""
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(copied)
        for part in batch:
            part.tiles.record_stream(computing)
