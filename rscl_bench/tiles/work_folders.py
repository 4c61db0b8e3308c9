"""Hidden work folders beside the tile stores, each locked by the process that packs in it."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from rscl_bench.scratch import locked, remove_stale

#: File name of the journal; a work folder with a journal can be resumed.
JOURNAL = "journal.json"
_KEY = "[0-9a-f]{16}"
#: Regular expression of the names of all work folders.
PATTERN = rf"\..+-{_KEY}-{_KEY}-\d+"


@contextmanager
def claimed(store: Path) -> Iterator[tuple[Path, int]]:
    """Claim the first work folder of a store that no other process or thread packs in.

    If packing is interrupted after the first journal, the folder stays, to be resumed.

    Args:
        store: Folder whose name, with a number, is that of the work folder.

    Yields:
        The work folder, and the file descriptor of its lock.
    """
    for number in count():
        work = store.parent / f".{store.name}-{number}"
        with locked(work) as lock:
            if lock is None:
                continue
            work.mkdir(exist_ok=True)
            try:
                yield work, lock
            finally:
                if not has_journal(work):
                    shutil.rmtree(work, ignore_errors=True)
            return


def has_journal(work: Path) -> bool:
    """Return whether the work in a folder can be resumed."""
    return (work / JOURNAL).is_file()


def remove_abandoned(tiles: Path, stem: str, keep: Path | None = None) -> None:
    """Remove the unlocked work folders of a split, and those of others that cannot be resumed.

    Args:
        tiles: Folder of all stores.
        stem: Beginning of the names of the split's stores, for all versions of its archive.
        keep: A work folder that stays.
    """
    remove_stale(tiles, rf"\.{re.escape(stem)}-{_KEY}-\d+", lambda work: work == keep)
    remove_stale(tiles, PATTERN, has_journal)
