"""The Avalanche stream of a scenario: one experience per task, without labels."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from rscl_bench.avalanche_api import (
    AvalancheDataset,
    CLScenario,
    DataAttribute,
    benchmark_from_datasets,
)
from rscl_bench.tiles.loader import read_tiles
from rscl_bench.tiles.store import TileStore


class Tiles(Dataset[tuple[Tensor, int]]):
    """The tiles of one task as a dataset of single samples, without labels.

    Avalanche plugins may iterate over this dataset. Training does not: `TileLoader` reads whole
    batches.
    """

    def __init__(self, store: TileStore):
        self.store = store

    def __len__(self) -> int:
        """Return the number of tiles."""
        return len(self.store)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a tile ``[H, W, C]`` in its stored dtype, and the index of the tile.

        The sample is a tuple, because Avalanche misreads bare tensors and rejects dictionaries.
        """
        return read_tiles(self.store, np.array([index]))[0], index


def make_stream(stores: Sequence[TileStore]) -> CLScenario:
    """Return an Avalanche scenario whose ``train`` stream has one experience per tile store.

    The dataset of every experience has the attribute ``tile_index``, so that buffers can store
    indices instead of tiles.
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
