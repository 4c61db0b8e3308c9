"""Cuts the scenes of an archive in worker processes and yields the results in order."""

import multiprocessing
import os
import signal
import sys
import warnings
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from rscl_bench.cores import usable_cores
from rscl_bench.interruption import SIGNALS
from rscl_bench.tiles.cutting import SceneCutter, SceneResult

#: Workers start only for archives of at least this many bytes of files. One process decodes about
#: 8 MiB of uncompressed TIFFs, the fastest format, in the time that two workers take to start.
WORTH_WORKERS = 8 << 20
#: The most workers. More workers hold more scenes in memory, and one writer is busy with 8.
MOST_WORKERS = 8
#: A worker sends the tiles of several small files at once, up to this many bytes and files: single
#: tiles of 256 x 256 pixels cost a fifth more processor time. A larger file is a batch by itself.
BATCH_BYTES, BATCH_FILES = 1 << 20, 16
#: Batches that each worker may hold at a time, which bounds the memory.
PREFETCHED = 2


def cut_in_order(scenes: SceneCutter, start: int, lock: int) -> Generator[SceneResult, None, None]:
    """Decode and cut scenes, in worker processes if the files are large enough to gain by workers.

    Args:
        scenes: The scenes.
        start: Index of the first scene to cut.
        lock: File descriptor of the work folder's lock. A forked worker closes its copy.

    Yields:
        The result of each scene, in order. Closing the generator ends the workers.

    Raises:
        RuntimeError: If a worker died. The message begins with "DataLoader worker". Torch raises
            the error wherever the main thread is, so the caller's own code may raise it too.
    """
    sizes = [_size(path) for path in scenes.adapter.files[start:]]
    batches = _batches(sizes, start)
    workers = min(usable_cores(), MOST_WORKERS, len(batches))
    # A daemonic process may not have children.
    if sum(sizes) < WORTH_WORKERS or workers < 2 or multiprocessing.current_process().daemon:
        workers = 0
    for results in _loaded(scenes, batches, workers, lock):
        yield from results


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # The adapter names the file when it reads the scene.
        return 0


def _batches(sizes: Sequence[int], start: int) -> list[list[int]]:
    """Group the indices of consecutive scenes, given the sizes of their files from ``start`` on."""
    batches: list[list[int]] = []
    filled = 0
    for index, size in enumerate(sizes, start):
        if not batches or filled + size > BATCH_BYTES or len(batches[-1]) == BATCH_FILES:
            batches.append([])
            filled = 0
        batches[-1].append(index)
        filled += size
    return batches


def _loaded(
    scenes: SceneCutter, batches: list[list[int]], workers: int, lock: int
) -> Iterator[list[SceneResult]]:
    """Start the workers and return an iterator over the results of each batch."""
    with warnings.catch_warnings():
        # Python 3.12 and later warn when a process with threads forks, since a lock that a thread
        # holds stays locked in the child. Workers print nothing and compute with NumPy, Pillow and
        # GDAL only; the loader ends a worker that hangs.
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
        try:
            return iter(_loader(scenes, batches, workers, lock))
        except OSError:  # The system has no more processes or semaphores.
            return iter(_loader(scenes, batches, 0, lock))


def _loader(
    scenes: SceneCutter, batches: list[list[int]], workers: int, lock: int
) -> DataLoader[SceneResult]:
    # A forked worker has modules and adapter already. macOS cannot fork safely.
    forked = sys.platform == "linux"
    return DataLoader(
        scenes,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_keep_arrays,
        prefetch_factor=PREFETCHED if workers else None,
        multiprocessing_context=("fork" if forked else "spawn") if workers else None,
        worker_init_fn=partial(_start_worker, lock if forked else None),
        generator=torch.Generator(),  # A loader draws a seed, which must not be torch's global one.
    )


def _keep_arrays(results: list[SceneResult]) -> list[SceneResult]:
    """Collate nothing: torch would move the arrays into ``/dev/shm``, which may be small."""
    return results


def _start_worker(lock: int | None, _worker: int) -> None:
    """Drop what a forked worker inherited from its parent: lock, signal handlers and console."""
    if lock is not None:
        os.close(lock)  # An open copy would hold the lock after the parent was killed.
    # The parent answers signals, and ends its workers by SIGTERM.
    for number in SIGNALS:
        ends = number == signal.SIGTERM
        signal.signal(number, signal.SIG_DFL if ends else signal.SIG_IGN)
    # A progress bar replaces both streams, and its lock may be held at the moment of the fork.
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
