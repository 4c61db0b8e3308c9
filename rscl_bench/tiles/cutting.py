"""Cuts the scenes of an archive into tiles, with class shares and band sums."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from rscl_bench.archives.adapter import DatasetAdapter, Objects, Scene
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.errors import ArchiveError, RsclError
from rscl_bench.spec import OnBadTile, Source
from rscl_bench.tiles.source_files import SourceFiles, source_file_digest


@dataclass(frozen=True)
class SceneTiles:
    """The n tiles of one scene with C bands, and their statistics.

    Attributes:
        tiles: ``[n, H, W, C]``, contiguous, in the archive's dtype; the source's bands only.
        shares: Share of each tile's pixels that each of L classes takes, ``[n, L]``; None without
            labels.
        sums: Sum over the measured pixels of each tile and band, ``[n, C]``.
        squares: Sum of the squared measured pixels of each tile and band, ``[n, C]``.
        blank: Number of tiles that are zero everywhere.
        missing: Number of pixels of each tile and band that the archive declares as missing,
            ``[n, C]``.
    """

    tiles: NDArray[Any]
    shares: NDArray[np.float32] | None
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    blank: int
    missing: NDArray[np.int64]


class SceneResult(NamedTuple):
    """The result of cutting one scene.

    Attributes:
        tiles: The tiles, an error to raise, or None if the scene is skipped.
        digests: SHA-256 of each file of ``SourceFiles.of_scene``, one after the other.
    """

    tiles: SceneTiles | RsclError | None
    digests: bytes


class SceneCutter(Dataset[SceneResult]):
    """The scenes of a split, hashed, decoded and cut when they are indexed.

    Errors are returned instead of raised: an error that is raised in a worker would carry the
    worker's traceback into the message.

    Args:
        data_root: Folder that holds the archives.
        source: The split, its bands and how its scenes are cut.
        with_labels: Whether class shares are computed.
        on_bad_tile: Whether a scene that cannot be read is an error or is skipped.
    """

    def __init__(self, data_root: Path, source: Source, with_labels: bool, on_bad_tile: OnBadTile):
        self._arguments = data_root, source, with_labels, on_bad_tile
        self.source, self.with_labels, self.on_bad_tile = source, with_labels, on_bad_tile
        self.adapter: DatasetAdapter = adapter_class(source.dataset, source.options)(
            data_root, source.split, source.options
        )
        self.files = SourceFiles(self.adapter, with_labels)
        bands = self.adapter.sensor.indices(source.bands)
        all_in_order = list(bands) == list(range(len(self.adapter.sensor.bands)))
        # A slice makes a view. A list makes a copy, which takes longer than cutting.
        self._bands = slice(None) if all_in_order else bands

    def __reduce__(self) -> Any:
        """Pickle the arguments: an adapter's class from a file cannot be pickled by name."""
        return type(self), self._arguments

    def __getitem__(self, index: int) -> SceneResult:
        """Return the result of the scene at an index of the adapter's files."""
        # Hashing comes first and leaves the file in the system's cache for the decoder.
        digests = b"".join(map(source_file_digest, self.files.of_scene(index)))
        return SceneResult(self._tiles_of(index), digests)

    def _tiles_of(self, index: int) -> SceneTiles | RsclError | None:
        try:
            scene = self.adapter.scene(index, self.with_labels)
        except RsclError as error:
            skip = isinstance(error, ArchiveError) and self.on_bad_tile == "skip"
            return None if skip else error
        if not self.with_labels:
            # Tasks show no labels, even if an adapter returns some.
            scene = Scene(scene.image, missing=scene.missing)
        try:
            return self._cut(scene, self.adapter.files[index])
        except RsclError as error:
            return error

    def _cut(self, scene: Scene, path: Path) -> SceneTiles:
        tiles, shares, missing = zip(
            *_tiles(scene, self.source, len(self.adapter.classes), path), strict=True
        )
        stacked = self._stacked(tiles)
        measured = stacked
        counts = np.zeros((len(stacked), stacked.shape[3]), np.int64)
        if scene.missing is not None:
            left_out = self._stacked(missing)
            measured, counts = np.where(left_out, 0, stacked), left_out.sum(axis=(1, 2))
        sums, squares = zip(*map(_band_sums, measured), strict=True)
        return SceneTiles(
            stacked,
            np.stack(shares) if self.with_labels else None,
            np.stack(sums).astype(np.float64),
            np.stack(squares).astype(np.float64),
            sum(not tile_sums.any() for tile_sums in sums),
            counts,
        )

    def _stacked(self, tiles: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Select the source's bands of tiles ``[H, W, C]``: ``[n, H, W, C]``, contiguous."""
        selected = [tile[:, :, self._bands] for tile in tiles]
        stacked = selected[0][None] if len(selected) == 1 else np.stack(selected)
        return np.ascontiguousarray(stacked)  # Indexing by a list changes the memory order.


def _tiles(
    scene: Scene, source: Source, classes: int, path: Path
) -> Iterator[tuple[NDArray[Any], NDArray[np.float32] | None, NDArray[np.bool_] | None]]:
    """Yield the tiles of a scene ``[H, W, C]``, their class shares ``[L]`` and missing pixels."""
    size = source.tile_size
    height, width = scene.image.shape[:2]
    labels = None if scene.labels is None else scene.labels.astype(np.float32)
    if scene.objects is not None:
        labels = _presence(scene.objects, (0, 0), (height, width), classes)
    if source.cut == "whole":
        shares = _shares(scene.mask, classes) if scene.mask is not None else labels
        missing = None if scene.missing is None else _nearest(scene.missing, size)
        yield _resized(scene.image, size), shares, missing
        return
    if height < size or width < size:
        raise ArchiveError(
            f"{path} is {width}×{height} pixels, smaller than one tile of {size}; lower tile_size "
            'or set cut = "whole".'
        )
    for top in range(0, height - size + 1, size):
        for left in range(0, width - size + 1, size):
            window = np.s_[top : top + size, left : left + size]
            shares = labels
            if scene.mask is not None:
                shares = _shares(scene.mask[window], classes)
            if scene.objects is not None:
                shares = _presence(scene.objects, (top, left), (size, size), classes)
            missing = None if scene.missing is None else scene.missing[window]
            yield scene.image[window], shares, missing


def _shares(mask: NDArray[np.uint8], classes: int) -> NDArray[np.float32]:
    """Return each class's share of all pixels of a mask, ``[L]``; undefined pixels count too."""
    counts = np.bincount(mask.ravel(), minlength=256)[:classes]
    return (counts / mask.size).astype(np.float32)


def _presence(
    objects: Objects, corner: tuple[int, int], size: tuple[int, int], classes: int
) -> NDArray[np.float32]:
    """Return which classes have an object whose centre lies in a window, ``[L]`` of 0 and 1."""
    inside = ((objects.centres >= corner) & (objects.centres < np.add(corner, size))).all(axis=1)
    present = np.zeros(classes, np.float32)
    present[objects.classes[inside]] = 1
    return present


def _resized(image: NDArray[Any], size: int) -> NDArray[Any]:
    """Resize ``[H, W, C]`` to ``[size, size, C]`` by Pillow's antialiased bilinear filter."""
    if image.shape[:2] == (size, size):
        return image
    bands = []
    for band in np.moveaxis(image, 2, 0):
        # Pillow resamples 16-bit integers only as 32-bit floats.
        plane = Image.fromarray(band if band.dtype == np.uint8 else band.astype(np.float32))
        resized = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        bands.append(resized if band.dtype == np.uint8 else np.rint(resized).astype(band.dtype))
    return np.stack(bands, axis=2)


def _nearest(pixels: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """Resize ``[H, W, C]`` to ``[size, size, C]`` by the nearest pixel."""
    rows, columns = ((np.arange(size) * 2 + 1) * side // (2 * size) for side in pixels.shape[:2])
    resized: NDArray[np.bool_] = pixels[rows[:, None], columns]
    return resized


def _band_sums(tile: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the exact sum and sum of squares of each band of a tile ``[H, W, C]``, each ``[C]``.

    Integer sums over whole rows are twenty times as fast as float64 sums over pixels. An integer of
    twice the tile's bytes holds a square; an integer of four times the bytes holds the sum of a
    column of 65,536 squares.
    """
    rows = tile.reshape(len(tile), -1)
    double, fourfold = (np.dtype(f"u{factor * tile.dtype.itemsize}") for factor in (2, 4))
    by_column = (
        rows.sum(axis=0, dtype=fourfold),
        np.square(rows, dtype=double).sum(axis=0, dtype=fourfold),
    )
    sums, squares = (
        columns.reshape(tile.shape[1:]).sum(axis=0, dtype=np.uint64) for columns in by_column
    )
    return sums, squares
