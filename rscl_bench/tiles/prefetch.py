"""Reads the next batch of tiles, and copies the batch to the GPU, while the current one is used."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch
from torch import Tensor

from rscl_bench.tiles.loader import TileLoader


class BatchPart(NamedTuple):
    """The tiles of a batch that come from one task.

    Attributes:
        task: The task's number.
        indices: Indices into the task's tiles, ``[n]`` int64, on the CPU.
        tiles: The stored tiles, ``[n, H, W, C]`` in their stored dtype, on the training device.
    """

    task: int
    indices: Tensor
    tiles: Tensor


class Prefetcher:
    """A loader's batches on the training device. A thread reads one batch ahead.

    On a GPU a CUDA stream beside the computing one copies each batch.

    Args:
        loader: Source of the batches.
        device: The training device.

    Attributes:
        waited: Seconds that training waited for batches so far. The time that a GPU waits for a
            copy is not included.
    """

    def __init__(self, loader: TileLoader, device: torch.device):
        self._loader, self._device = loader, device
        self._copy_stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._copy_stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self.waited = 0.0

    def __len__(self) -> int:
        """Return the number of steps of an epoch."""
        return len(self._loader)

    def skip(self, steps: int) -> None:
        """Skip ahead as if ``steps`` steps, over all epochs, had been taken."""
        self._loader.skip(steps)

    def __iter__(self) -> Iterator[list[BatchPart]]:
        """Yield the batches of the next epoch."""
        batches = self._on_device()
        with ThreadPoolExecutor(1, "prefetch") as thread:
            pending = thread.submit(next, batches, None)
            while True:
                started = time.perf_counter()
                loaded = pending.result()
                self.waited += time.perf_counter() - started
                if loaded is None:
                    return
                pending = thread.submit(next, batches, None)
                batch, copied = loaded
                if copied is not None:
                    self._await_copy(batch, copied)
                yield batch

    def _on_device(self) -> Iterator[tuple[list[BatchPart], torch.cuda.Event | None]]:
        """Yield batches on the device, each with the event that marks the end of its copy."""
        for batch in self._loader:
            if self._copy_stream is None:
                yield [BatchPart(*part) for part in batch], None
                continue
            with torch.cuda.stream(self._copy_stream):
                copies = [
                    BatchPart(task, indices, tiles.pin_memory().to(self._device, non_blocking=True))
                    for task, indices, tiles in batch
                ]
            yield copies, self._copy_stream.record_event()

    def _await_copy(self, batch: list[BatchPart], copied: torch.cuda.Event) -> None:
        """Let the computing stream wait for a batch's copy, and then own the batch's memory."""
        computing = torch.cuda.current_stream(self._device)
        computing.wait_event(copied)
        for part in batch:
            part.tiles.record_stream(computing)
