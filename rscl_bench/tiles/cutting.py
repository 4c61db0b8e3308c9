"""Cutting: from the scenes of an archive to tiles, in worker processes, in order."""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from rscl_bench import registry
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.errors import ArchiveError, RsclError
from rscl_bench.spec import OnBadTile, Source

#: Bytes of files from which on workers are started: in the time that two take to start and end,
#: one process decodes about as many bytes of uncompressed TIFFs, and fewer of anything else.
WORTH_WORKERS = 8 << 20
#: More are not started: they bound the scenes in memory, and one writer is busy with fewer where
#: decoding is cheap.
MOST_WORKERS = 8
#: What a worker decodes at a time: one file, or small ones up to this many bytes and files. Sent
#: one by one, tiles of 256 x 256 pixels take a fifth more processor time.
GROUP_BYTES, GROUP_FILES = 1 << 20, 16
PREFETCHED = 2  # groups that a worker is given at a time


@dataclass(frozen=True)
class Cut:
    """The tiles of one scene, and what is kept of each.

    Attributes:
        tiles: ``[n, H, W, C]``, contiguous, of the bands asked for.
        shares: Share of each class, ``[n, L]``; None without labels.
        sums: Sum of each band, ``[n, C]``.
        squares: Sum of each band's squares, ``[n, C]``.
        blank: How many are zero everywhere.
    """

    tiles: NDArray[Any]
    shares: NDArray[np.float32] | None
    sums: NDArray[np.float64]
    squares: NDArray[np.float64]
    blank: int


#: What becomes of a scene: its tiles, the error to raise, or None where it is left out.
Result = Cut | RsclError | None


class SceneCutter(Dataset[list[Result]]):
    """The scenes of a split, by ranges, decoded and cut.

    Errors are values, so that the user's sentence comes without a worker's traceback.
    """

    def __init__(self, data_root: Path, source: Source, with_labels: bool, on_bad_tile: OnBadTile):
        self.given = data_root, source, with_labels, on_bad_tile
        self.source, self.with_labels, self.on_bad_tile = source, with_labels, on_bad_tile
        self.adapter: DatasetAdapter = registry.load("datasets", source.dataset)(
            data_root, source.split, source.options
        )
        bands = self.adapter.sensor.indices(source.bands)
        every = list(bands) == list(range(len(self.adapter.sensor.bands)))
        # A slice is a view; a list copies, and takes longer than cutting.
        self.bands = slice(None) if every else bands

    def __reduce__(self) -> Any:
        """Rebuild the adapter where it arrives: a class from a file cannot be pickled by name."""
        return type(self), self.given

    def __getitem__(self, indices: range) -> list[Result]:
        return [self._result(index) for index in indices]

    def _result(self, index: int) -> Result:
        try:
            scene = self.adapter.scene(index, self.with_labels)
        except RsclError as error:
            skip = isinstance(error, ArchiveError) and self.on_bad_tile == "skip"
            return None if skip else error
        if not self.with_labels:
            scene = Scene(scene.image)  # tasks show no labels, whatever an adapter returns
        try:
            return self._cut(scene, self.adapter.files[index])
        except RsclError as error:
            return error

    def _cut(self, scene: Scene, path: Path) -> Cut:
        tiles, shares = zip(
            *_tiles(scene, self.source, len(self.adapter.classes), path), strict=True
        )
        pieces = [tile[:, :, self.bands] for tile in tiles]
        # One tile needs no copy; an index by a list gives another order in memory.
        stacked = np.ascontiguousarray(pieces[0][None] if len(pieces) == 1 else np.stack(pieces))
        sums, squares = zip(*map(_band_sums, stacked), strict=True)
        return Cut(
            stacked,
            np.stack(shares) if self.with_labels else None,
            np.stack(sums).astype(np.float64),
            np.stack(squares).astype(np.float64),
            sum(not tile.any() for tile in sums),
        )


def _tiles(
    scene: Scene, source: Source, classes: int, path: Path
) -> Iterator[tuple[NDArray[Any], NDArray[np.float32] | None]]:
    """Yield the tiles of a scene ``[H, W, C]`` with the class shares ``[L]`` of each."""
    size = source.tile_size
    height, width = scene.image.shape[:2]
    labels = None if scene.labels is None else scene.labels.astype(np.float32)
    if source.cut == "whole":
        shares = _shares(scene.mask, classes) if scene.mask is not None else labels
        yield _resized(scene.image, size), shares
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
            yield scene.image[window], shares


def _shares(mask: NDArray[np.uint8], classes: int) -> NDArray[np.float32]:
    """Return the share of all pixels, undefined ones included, that each class takes: ``[L]``."""
    counts = np.bincount(mask.ravel(), minlength=256)[:classes]
    return (counts / mask.size).astype(np.float32)


def _resized(image: NDArray[Any], size: int) -> NDArray[Any]:
    """Resize ``[H, W, C]`` with Pillow's antialiased bilinear filter, band by band."""
    if image.shape[:2] == (size, size):
        return image
    bands = []
    for band in np.moveaxis(image, 2, 0):
        # Pillow resamples 16-bit integers only as 32-bit floats.
        plane = Image.fromarray(band if band.dtype == np.uint8 else band.astype(np.float32))
        resized = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        bands.append(resized if band.dtype == np.uint8 else np.rint(resized).astype(band.dtype))
    return np.stack(bands, axis=2)


def _band_sums(tile: NDArray[Any]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return sum and sum of squares of each band, exactly.

    In integers, and whole rows at a time, which is twenty times as fast as in float64 by pixel.
    Twice the bytes hold a square, and four times the bytes a column of 65,536 of them.
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


class _HandedOver(Dataset[list[Result]]):
    """Scenes cut by forked workers, whose tiles come through files that are used again and again.

    Through a pipe they would be copied four times more: pickled, written, read, unpickled. The
    files have no name, so that a worker that outlives its parent writes into nobody else's.

    Args:
        scenes: What to cut.
        files: One for each group of scenes that may be on its way; none where nothing is forked.
    """

    def __init__(self, scenes: SceneCutter, files: Sequence[BinaryIO]):
        self.scenes, self.files = scenes, files

    def __reduce__(self) -> Any:
        """Leave the files: a worker that is not forked has not inherited them."""
        return type(self), (self.scenes, ())

    def __getitem__(self, numbered: tuple[int, range]) -> list[Result]:
        """Return a group's results, their tiles left in its file; as they are if that is full."""
        number, group = numbered
        results = self.scenes[group]
        if not self.files:
            return results
        handle, end = self._handle(number), 0
        emptied = list(results)
        try:
            for place, result in enumerate(results):
                if isinstance(result, Cut):
                    end = _write(handle, result.tiles, end)
                    emptied[place] = replace(result, tiles=result.tiles[:0])
        except OSError:  # no room; then there is none for the store either, and that is said
            return results
        return emptied

    def taken(self, number: int, results: list[Result]) -> Iterator[Result]:
        """Yield a group's results with their tiles."""
        end = 0
        for result in results:
            if isinstance(result, Cut) and len(result.tiles) < len(result.sums):
                tiles = np.empty((len(result.sums), *result.tiles.shape[1:]), result.tiles.dtype)
                end = _read(self._handle(number), tiles, end)
                yield replace(result, tiles=tiles)
            else:
                yield result

    def _handle(self, number: int) -> int:
        return self.files[number % len(self.files)].fileno()


# At a place of their own, since parent and workers share a file's position; in parts, since the
# system takes at most two gigabytes at a time.


def _write(handle: int, array: NDArray[Any], start: int) -> int:
    left = array.data.cast("B")
    while left:
        written = os.pwrite(handle, left, start)
        left, start = left[written:], start + written
    return start


def _read(handle: int, array: NDArray[Any], start: int) -> int:
    left = array.data.cast("B")
    while left:
        found = os.preadv(handle, [left], start)
        if not found:
            raise OSError("tiles on their way were cut short")
        left, start = left[found:], start + found
    return start


def cut_in_order(
    scenes: SceneCutter, start: int, folder: Path, lock: int | None
) -> Generator[Result, None, None]:
    """Decode and cut scenes in worker processes where that is worth it.

    Not more than a few groups of scenes for each worker are on their way at a time.

    Args:
        scenes: What to cut.
        start: First scene.
        folder: Of the file system where tiles on their way may lie.
        lock: Handle that a forked worker must close.

    Yields:
        What becomes of each scene, in order. Closing ends the workers.

    Raises:
        RuntimeError: If a worker died; the message begins with "DataLoader worker".
    """
    sizes = [_size(path) for path in scenes.adapter.files[start:]]
    groups = _groups(sizes, start)
    workers = min(usable_cores(), MOST_WORKERS, len(groups))
    # A process that is itself a daemon may start none.
    if sum(sizes) < WORTH_WORKERS or workers < 2 or multiprocessing.current_process().daemon:
        workers = 0
    # A worker that is forked has modules and adapter already. macOS cannot fork safely.
    forked = sys.platform == "linux"
    with ExitStack() as stack:
        # A loader asks for the next group before it gives one, which is still being read then.
        many = PREFETCHED * workers + 1 if workers and forked else 0
        files = [stack.enter_context(TemporaryFile(dir=folder)) for _ in range(many)]
        handed_over = _HandedOver(scenes, files)
        for number, results in enumerate(_loading(handed_over, groups, workers, forked, lock)):
            yield from handed_over.taken(number, results)


def _groups(sizes: list[int], start: int) -> list[range]:
    """Divide the scenes from one on: what is sent at a time costs time per piece, and memory."""
    groups = [range(start, start)]
    filled = 0
    for index, size in enumerate(sizes, start):
        if groups[-1] and (filled + size > GROUP_BYTES or len(groups[-1]) == GROUP_FILES):
            groups.append(range(index, index))
            filled = 0
        groups[-1] = range(groups[-1].start, index + 1)
        filled += size
    return groups


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever reads it says so
        return 0


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _loading(
    scenes: _HandedOver, groups: list[range], workers: int, forked: bool, lock: int | None
) -> Iterator[list[Result]]:
    loader = DataLoader(
        scenes,
        batch_size=None,
        sampler=list(enumerate(groups)),
        num_workers=workers,
        collate_fn=_as_it_is,
        prefetch_factor=PREFETCHED if workers else None,
        multiprocessing_context=("fork" if forked else "spawn") if workers else None,
        worker_init_fn=partial(_start_worker, lock if forked else None),
        generator=torch.Generator(),  # a loader draws a seed, and none may come from torch's own
    )
    with warnings.catch_warnings():
        # Python 3.12 and later warn at a fork in a process with threads, since a lock that one of
        # them holds stays locked in the child. Workers print nothing, compute with NumPy, Pillow
        # and GDAL, and one that does not end is ended by the loader.
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        try:
            iterator: Iterator[list[Result]] = iter(loader)
        except OSError:  # the system starts no more processes, or has no semaphores
            iterator = map(scenes.scenes.__getitem__, groups)
    yield from iterator


def _as_it_is(group: list[Result]) -> list[Result]:
    """Keep arrays: tensors need room in /dev/shm."""
    return group


def _start_worker(lock: int | None, _number: int) -> None:
    """Leave to the parent what a fork took along: its lock, signals and console."""
    if lock is not None:
        os.close(lock)  # else a parent that was killed would hold it until its workers notice
    for number in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    # A progress bar takes their place, with a lock that may be held at the fork.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
