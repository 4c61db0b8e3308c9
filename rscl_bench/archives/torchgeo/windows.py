"""The windows of TorchGeo's grid sampler over rasters with coordinates, and their exact pixels.

TorchGeo's sampler lays a grid over every raster. Two kinds of windows are left out: those that
reach beyond their raster, where TorchGeo fills zeros or takes pixels that the grid of the next
raster has too, and those that an earlier raster gave already.

TorchGeo merges rasters with GDAL's masks. A fourth band that is tagged as alpha, as the infrared
band of NAIP, then blanks the others where it is 0. The pixels of a window are therefore read from
its raster.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio

from rscl_bench.errors import ArchiveError

#: Largest distance from a whole pixel, in pixels, of a window on the grid of its raster.
_OFF_GRID = 1e-3


@dataclass(frozen=True)
class Window:
    """One window of the grid.

    Attributes:
        query: Slices of x, y and time, as TorchGeo's datasets take them.
        rasters: The rasters that hold the whole window, as listed in the dataset's index.
    """

    query: tuple[slice, slice, slice]
    rasters: tuple[Path, ...]


def windows_of(dataset: Any, side: int, labels: Any | None = None) -> list[Window]:
    """Return the windows of a dataset in the order of the grid sampler.

    Args:
        dataset: A ``GeoDataset`` of rasters.
        side: Height and width of a window in pixels.
        labels: A ``GeoDataset`` of masks that must cover a window, or None.
    """
    import shapely
    from torchgeo.samplers import GridGeoSampler

    found: dict[tuple[Any, ...], Window] = {}
    tolerance = max(dataset.res) * _OFF_GRID
    for query in GridGeoSampler(dataset, size=side):
        x, y, time = query
        box = shapely.box(x.start, y.start, x.stop, y.stop)
        key = (*(round(bound / tolerance) for bound in box.bounds), time.start, time.stop)
        near = _near(dataset, query, box)
        within = near[near.geometry.buffer(tolerance).covers(box)]
        if key in found or within.empty:
            continue
        if labels is not None and not _covered(_near(labels, query, box), box, tolerance):
            continue
        rasters = tuple(map(Path, within["filepath"]))
        found[key] = Window(query, rasters)
    return list(found.values())


def _near(dataset: Any, query: Any, box: Any) -> Any:
    """Return the rows of a dataset's index whose rasters overlap a window in place and time."""
    import pandas as pd

    x, y, time = query
    index = dataset.index
    near = index.iloc[index.index.overlaps(pd.Interval(time.start, time.stop))]
    near = near.cx[x.start : x.stop, y.start : y.stop]
    return near[near.geometry.intersection(box).area > 0]


def _covered(near: Any, box: Any, tolerance: float) -> bool:
    """Return whether rasters together cover a window."""
    import shapely

    return bool(shapely.union_all(near.geometry).buffer(tolerance).covers(box))


def require_one_grid(paths: Sequence[Path], title: str) -> None:
    """Refuse rasters that TorchGeo would warp to the coordinates of the first.

    Raises:
        ArchiveError: If a raster has no coordinates, is rotated, or differs from the first in its
            coordinate reference system or pixel size.
    """
    first: tuple[Any, Any] | None = None
    for path in paths:
        with rasterio.open(path) as raster:
            own = (raster.crs, tuple(round(size, 9) for size in raster.res))
            rotated = raster.transform.b or raster.transform.d
        if own[0] is None or rotated:
            raise ArchiveError(
                f"{path} {'is rotated' if rotated else 'has no coordinates'}, so that its pixels "
                f"would be resampled; store the rasters of {title} north up with a coordinate "
                "reference system."
            )
        first = first or own
        if own != first:
            raise ArchiveError(
                f"{path} has the grid {own[0]} with pixels of {own[1]} where {paths[0]} has "
                f"{first[0]} with {first[1]}, so that its pixels would be resampled; put each grid "
                "into a folder and a task of its own."
            )


def pixels_of(window: Window, files: Sequence[Path], indexes: Sequence[int] | None) -> Any:
    """Read a window from a raster that holds it, without any mask or resampling.

    Args:
        window: The window.
        files: The raster, or its bands as files of one band each.
        indexes: Bands to read, from 1; None for all.

    Returns:
        Pixels, ``[C, H, W]`` float32, NaN where the file's nodata value stands; None if the window
        lies off the raster's grid, or its bands have several pixel sizes.
    """
    planes = []
    x, y, _ = window.query
    for path in files:
        with rasterio.open(path) as raster:
            place = rasterio.windows.from_bounds(
                x.start, y.start, x.stop, y.stop, transform=raster.transform
            )
            whole = place.round_offsets().round_lengths()
            if max(abs(place.col_off - whole.col_off), abs(place.row_off - whole.row_off)) > (
                _OFF_GRID
            ):
                return None
            read = raster.read(indexes, window=whole)
            pixels = read.astype(np.float32)
            if raster.nodata is not None:
                pixels[read == raster.nodata] = np.nan
            planes.append(pixels)
    sizes = {plane.shape[1:] for plane in planes}
    return np.concatenate(planes) if len(sizes) == 1 else None
