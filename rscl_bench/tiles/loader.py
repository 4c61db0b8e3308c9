"""Reads whole batches of tiles from the memory maps of tile stores."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rscl_bench.randomness import numpy_generator
from rscl_bench.tiles.store import TileStore

#: A task's number and indices into the task's tiles, ``[n]`` int64.
TaskTiles = tuple[int, Tensor]


def read_tiles(store: TileStore, indices: NDArray[np.int64]) -> Tensor:
    """Read the tiles at indices ``[n]`` in one operation: ``[n, H, W, C]`` in the stored dtype."""
    return torch.from_numpy(store.tiles[indices])


class TileLoader:
    """Shuffled whole batches of one task's training tiles. Each iteration is the next epoch.

    The tiles may come from several stores, as when a memory is trained along with the current task.
    The order of epoch e is a function of seed, task and e. An incomplete last batch is dropped, so
    that every step of a contrastive loss has the same number of negatives.

    Args:
        stores: The tile store of each task.
        tiles: The tiles to train on.
        batch_size: Number of tiles in a batch.
        seed: The run's seed.
        task: Number of the current task, part of the order's key.
    """

    def __init__(
        self,
        stores: Sequence[TileStore],
        tiles: Sequence[TaskTiles],
        batch_size: int,
        seed: int,
        task: int,
    ):
        self._stores, self._tiles, self._batch_size = stores, tiles, batch_size
        # The entry of `tiles` that each position of the epoch belongs to.
        self._entries = np.repeat(np.arange(len(tiles)), [len(indices) for _, indices in tiles])
        empty = np.empty(0, np.int64)  # `concatenate` needs an array even without tiles.
        self._indices = np.concatenate([empty, *(indices.numpy() for _, indices in tiles)])
        self._seed, self._task, self._epoch, self._skipped = seed, task, 0, 0

    def __len__(self) -> int:
        """Return the number of steps of an epoch."""
        return len(self._indices) // self._batch_size

    def skip(self, steps: int) -> None:
        """Skip ahead as if ``steps`` steps, over all epochs, had been taken."""
        self._epoch, self._skipped = divmod(steps, len(self))

    def __iter__(self) -> Iterator[list[tuple[int, Tensor, Tensor]]]:
        """Yield batches: lists of (task number, indices ``[n]``, tiles ``[n, H, W, C]``)."""
        rng = numpy_generator(self._seed, "order", self._task, self._epoch)
        order = rng.permutation(len(self._indices))
        first, self._skipped = self._skipped, 0
        self._epoch += 1
        for step in range(first, len(self)):
            batch = order[step * self._batch_size : (step + 1) * self._batch_size]
            yield list(self._read(batch))

    def _read(self, batch: NDArray[np.int64]) -> Iterator[tuple[int, Tensor, Tensor]]:
        for entry, (task, _) in enumerate(self._tiles):
            positions = batch[self._entries[batch] == entry]
            if len(positions):
                indices = self._indices[positions]
                yield task, torch.from_numpy(indices), read_tiles(self._stores[task], indices)
