"""Atomic, durable file writes: after a crash a file holds its old content or its new content."""

import os
import secrets
from pathlib import Path

from rscl_bench.errors import ArtefactError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a crash leaves the old file or the new file, never a part of one.

    The function writes a temporary file in the same folder, flushes that file to the disk and
    renames the file to ``path``. If two processes write one path at the same moment, either content
    may win.

    Args:
        path: The file's path. A missing folder is created.
        content: Bytes, or text. Text is encoded as UTF-8; newlines are not translated.

    Raises:
        ArtefactError: If the file cannot be written. An old file is then unchanged.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        sync_folder(path.parent)
    except OSError as error:
        raise ArtefactError(
            f"{path} of {len(data)} bytes cannot be written ({error.strerror or error}); free "
            "space or mend the folder's permissions and write again."
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
    if os.name == "posix":  # Windows cannot open a folder, and NTFS journals a rename by itself.
        sync_file(folder)
