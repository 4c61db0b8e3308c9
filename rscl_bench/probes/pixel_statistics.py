"""Pixel statistics: the lower reference that every encoder must beat."""

from typing import Any

import numpy as np
import numpy.typing as npt


def pixel_statistics(tiles: npt.NDArray[Any], batch_size: int = 256) -> npt.NDArray[np.float32]:
    """Return the mean and the population standard deviation of every band of every tile.

    Args:
        tiles: ``[N, H, W, C]`` uint8 or uint16, in memory or memory-mapped, in raw units.
        batch_size: Tiles read at a time.

    Returns:
        ``[N, 2C]`` float32: the C means, then the C deviations, in the unit of the tiles.

    Raises:
        TypeError: If the tiles are not uint8 or uint16.
        ValueError: If the tiles are not ``[N, H, W, C]``, or a tile is empty.
    """
    if tiles.dtype not in (np.uint8, np.uint16):
        raise TypeError(f"tiles must be uint8 or uint16, got {tiles.dtype}")
    if tiles.ndim != 4 or 0 in tiles.shape[1:]:
        raise ValueError(f"tiles must be [N, H, W, C], got {list(tiles.shape)}")
    count, bands = tiles.shape[0], tiles.shape[3]
    statistics = np.empty((count, 2 * bands), dtype=np.float32)
    for start in range(0, count, batch_size):
        block = np.asarray(tiles[start : start + batch_size])
        # One tile at a time: a float64 copy of the batch would take eight times the memory.
        for row, tile in enumerate(block, start):
            pixels = tile.reshape(-1, bands).astype(np.float64)
            statistics[row, :bands] = pixels.mean(axis=0)
            statistics[row, bands:] = pixels.std(axis=0)
    return statistics
