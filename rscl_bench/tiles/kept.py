"""Some tiles of an ended task, in place of a tile store whose archive may be gone."""

from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rscl_bench.errors import TrainingError
from rscl_bench.tiles.store import TileStore


class KeptPixels:
    """Stands for the tiles of a task ``[N, H, W, C]``, of which only some can be read.

    Attributes:
        shape: Shape of all tiles.
        dtype: Stored type of the tiles.
    """

    def __init__(self, name: str, count: int, indices: NDArray[np.int64], pixels: NDArray[Any]):
        """Hold some tiles.

        Args:
            name: The task's name, for errors.
            count: Number N of all tiles of the task.
            indices: Numbers of the held tiles, sorted, ``[n]``.
            pixels: The held tiles, ``[n, H, W, C]``.
        """
        self.shape = (count, *pixels.shape[1:])
        self.dtype = pixels.dtype
        self._name, self._indices, self._pixels = name, indices, pixels

    def __getitem__(self, wanted: NDArray[np.int64]) -> NDArray[Any]:
        """Return the tiles of numbers ``[k]``, as ``[k, H, W, C]``.

        Raises:
            TrainingError: If a tile is not held.
        """
        lost = np.setdiff1d(wanted, self._indices)
        if len(lost):
            raise TrainingError(
                f"Tile {lost[0]} of task '{self._name}' is not in the kept state; a strategy or "
                "plugin that reads tiles of earlier tasks must name these tiles in kept_tiles."
            )
        return self._pixels[np.searchsorted(self._indices, wanted)]


def kept_store(
    pixels: KeptPixels,
    mean: NDArray[np.float64],
    std: NDArray[np.float64],
    scale: float,
    path: Path,
) -> TileStore:
    """Return a store of kept tiles, without labels.

    Args:
        pixels: The tiles.
        mean: Mean per band of all tiles of the task, in the declared unit, ``[C]``.
        std: Deviation per band of all tiles of the task, ``[C]``.
        scale: Full brightness in the declared unit.
        path: The file that holds the tiles.
    """
    return TileStore(
        tiles=cast("NDArray[Any]", pixels),
        shares=None,
        classes=(),
        mean=mean,
        std=std,
        scale=scale,
        blank=0,
        digest="",
        source_digest="",
        path=path,
    )
