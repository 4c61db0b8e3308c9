"""The lock on a run's folder: one process at a time executes a run."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rscl_bench.errors import ArtefactError

FILE = "run.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run's folder within a block.

    The operating system releases the lock when the process dies. A file system without locks gives
    none: two processes in one folder then write the same bytes, and the slower one may fail.

    Args:
        folder: The run's folder, which exists.

    Raises:
        ArtefactError: If another process or thread holds the lock.
    """
    path = folder / FILE
    descriptor = _acquired(path)
    try:
        yield
    finally:
        if descriptor is not None:
            path.unlink(missing_ok=True)
            os.close(descriptor)


def _acquired(path: Path) -> int | None:
    """Return the descriptor of a held lock, or None where the file system has no locks."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # The holder before may have removed the file after this process opened it.
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass
        except BlockingIOError as error:
            os.close(descriptor)
            raise ArtefactError(
                f"Another process executes this run in {path.parent}; wait until that process has "
                "ended, or give another --out."
            ) from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise
            os.close(descriptor)
            return None
        os.close(descriptor)
