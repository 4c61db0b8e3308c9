"""Hidden work folders beside the tile stores, each locked by the process that packs in it."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

#: File name of the journal; a work folder with a journal can be resumed.
JOURNAL = "journal.json"


@contextmanager
def claimed(store: Path) -> Iterator[tuple[Path, int]]:
    """Claim the first work folder of a store that no other process or thread packs in.

    If packing is interrupted after the first journal, the folder stays, to be resumed.

    Args:
        store: The store's folder.

    Yields:
        The work folder, and the file descriptor of its lock.
    """
    for number in count():
        work = store.parent / f".{store.name}-{number}"
        with _locked(work) as lock:
            if lock is None:
                continue
            work.mkdir(exist_ok=True)
            try:
                yield work, lock
            finally:
                if not (work / JOURNAL).is_file():
                    shutil.rmtree(work, ignore_errors=True)
            return


@contextmanager
def _locked(work: Path) -> Iterator[int | None]:
    """Lock a work folder and yield the lock's file descriptor; yield None if another holds it.

    The operating system releases the lock when the process dies.
    """
    path = work.with_name(f"{work.name}.lock")
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


def remove_abandoned(store: Path, keep: Path | None = None) -> None:
    """Remove the unlocked work folders of a store, and those of the store's outdated versions.

    Args:
        store: The store's folder.
        keep: A work folder that stays.
    """
    for work in store.parent.glob(f".{store.name.rpartition('-')[0]}-*"):
        if work == keep or not work.is_dir():
            continue
        with suppress(OSError), _locked(work) as lock:
            if lock is not None:
                shutil.rmtree(work, ignore_errors=True)
