"""Atomic, durable file writes: after a crash a file holds its old content or its new content."""

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from rscl_bench.errors import ArtefactError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a crash leaves the old file or the new file, never a part of one.

    The function writes a temporary file in the same folder, flushes that file to the disk and
    renames the file to ``path``. If two processes write one path at the same moment, either content
    may win. A process that is killed leaves its temporary file; the next call for the same path
    removes that file.

    Args:
        path: The file's path. A missing folder is created. The file's mode is the process's umask
            applied to 0666.
        content: Bytes, or text. Text is encoded as UTF-8; newlines are not translated.

    Raises:
        ArtefactError: If the file cannot be written. An old file is then unchanged.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with _temporary(path) as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ArtefactError(
            f"{path} of {len(data)} bytes cannot be written ({error.strerror or error}); free "
            "space or mend the folder's permissions and write again."
        ) from error


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the place of another at the end of the block, for long contents.

    The file is flushed and renamed as in `write_atomic`. After an exception nothing is replaced.

    Args:
        path: The file's path. A missing folder is created.

    Yields:
        An empty file, open for writing bytes.

    Raises:
        ArtefactError: If the file cannot be written. An old file is then unchanged.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(path)
        with _temporary(path) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be written ({error.strerror or error}); free space or mend the "
            "folder's permissions and write again."
        ) from error


def sync_file(path: Path) -> None:
    """Flush a file's content to the disk.

    Raises:
        OSError: If the file cannot be opened or flushed.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that created and renamed files survive a crash.

    Raises:
        OSError: If the folder cannot be opened or flushed.
    """
    sync_file(folder)


@contextmanager
def _temporary(path: Path) -> Iterator[BinaryIO]:
    """Open a new hidden file beside ``path``, locked while it is open; remove it at the end."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                # Between the two calls, another writer may take the file for an abandoned one.
                if _lock(file) and not os.fstat(file.fileno()).st_nlink:
                    continue
                yield file
                return
        finally:
            temporary.unlink(missing_ok=True)


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of ``path`` whose writers were killed.

    A writer locks its temporary file, and the system releases the lock when the process ends. On a
    file system without locks nothing is removed.
    """
    prefix, suffix = f".{path.name}.", ".tmp"
    with os.scandir(path.parent) as entries:
        names = [e.name for e in entries if e.name.startswith(prefix) and e.name.endswith(suffix)]
    for name in names:
        # Another process may remove the file first, or the file may be another user's.
        with suppress(OSError), path.with_name(name).open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.with_name(name).unlink()


def _lock(file: BinaryIO) -> bool:
    """Lock an open file; return False on a file system without locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError:
        return False
    return True
