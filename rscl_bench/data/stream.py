"""Tile stores as an Avalanche stream, and whole batches read from their maps."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from rscl_bench.avalanche_api import (
    AvalancheDataset,
    CLScenario,
    DataAttribute,
    benchmark_from_datasets,
)
from rscl_bench.data.tile_store import TileStore
from rscl_bench.randomness import numpy_generator


class Tiles(Dataset[tuple[Tensor, int]]):
    """One task's tiles, one by one, for Avalanche plugins that iterate; carries no labels.

    The training path does not use it: `TileLoader` reads whole batches.
    """

    def __init__(self, store: TileStore):
        self.store = store

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a tile ``[H, W, C]`` in its stored dtype, and its index.

        A tuple, since Avalanche mis-reads bare tensors and refuses dictionaries.
        """
        return read_tiles(self.store, np.array([index]))[0], index


def make_stream(stores: Sequence[TileStore]) -> CLScenario:
    """Return an Avalanche scenario whose ``train`` stream has one experience per tile store.

    Every experience's dataset carries ``tile_index``, so that buffers keep indices.
    """
    return benchmark_from_datasets(
        train=[
            AvalancheDataset(
                [Tiles(store)],
                data_attributes=[DataAttribute(range(len(store)), "tile_index")],
            )
            for store in stores
        ]
    )


def read_tiles(store: TileStore, indices: NDArray[np.int64]) -> Tensor:
    """Read tiles by index in one go: ``[B, H, W, C]`` in their stored dtype."""
    return torch.from_numpy(store.tiles[indices])


class TileLoader:
    """Shuffled whole batches of one task; every iteration is the next epoch.

    The order of epoch e is a function of seed, task and e. An incomplete last batch is dropped, so
    that every step of a contrastive loss has the same number of negatives.
    """

    def __init__(self, store: TileStore, batch_size: int, seed: int, task: int):
        self.store, self.batch_size = store, batch_size
        self._seed, self._task, self._epoch = seed, task, 0

    def __len__(self) -> int:
        """Return the number of steps of an epoch."""
        return len(self.store) // self.batch_size

    def __iter__(self) -> Iterator[Tensor]:
        """Yield batches ``[B, H, W, C]`` in the stored dtype."""
        rng = numpy_generator(self._seed, "order", self._task, self._epoch)
        order = rng.permutation(len(self.store))
        self._epoch += 1
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield read_tiles(self.store, order[start : start + self.batch_size])
