"""Hidden folders for unfinished work, each locked by the process that works in it.

A process that is killed leaves its folder behind. The operating system releases the lock, so that
the next process can tell the folder from one that is in use.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

_LOCK = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Lock a folder and yield the lock's file descriptor; yield None if another holds the lock.

    The lock is a file beside the folder. The operating system releases it when the process dies.
    """
    path = folder.with_name(f"{folder.name}{_LOCK}")
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    held = False
    try:
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The previous holder may have deleted the file after we opened it.
            held = os.path.samestat(os.fstat(descriptor), path.stat())
        yield descriptor if held else None
    finally:
        if held:
            path.unlink(missing_ok=True)
        os.close(descriptor)


@contextmanager
def scratch_folder(parent: Path, purpose: str) -> Iterator[Path]:
    """Make an empty hidden folder, which is removed at the end.

    The folders that killed processes left there for the same purpose are removed first.

    Args:
        parent: The folder to make it in, on the file system of the final result.
        purpose: Part of the folder's name.

    Yields:
        The folder.
    """
    name = f".rscl-bench-{purpose}-"
    remove_stale(parent, re.escape(name) + r"\d+")
    for number in count():
        work = parent / f"{name}{number}"
        with locked(work) as lock:
            if lock is None:
                continue
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                yield work
            finally:
                shutil.rmtree(work, ignore_errors=True)
            return


def remove_stale(
    parent: Path, pattern: str, kept: Callable[[Path], bool] = lambda _: False
) -> list[Path]:
    """Remove the hidden folders of a pattern that no process has locked, and their locks.

    Args:
        parent: The folder that holds them.
        pattern: Regular expression of their whole names.
        kept: Tells whether a folder stays.

    Returns:
        The removed folders.
    """
    removed = []
    for folder in work_folders(parent, pattern):
        # A folder that cannot be locked or removed, as on a read-only disk, stays.
        with suppress(OSError), locked(folder) as lock:
            if lock is not None and not kept(folder):
                if folder.is_dir():
                    removed.append(folder)
                shutil.rmtree(folder, ignore_errors=True)
    return removed


def work_folders(parent: Path, pattern: str) -> list[Path]:
    """Return the folders of a pattern, locked or not; a lock without a folder stands for one."""
    try:
        names = {path.name.removesuffix(_LOCK) for path in parent.iterdir()}
    except OSError:
        return []
    return [parent / name for name in sorted(names) if re.fullmatch(pattern, name)]
