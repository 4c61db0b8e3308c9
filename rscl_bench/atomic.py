"""Writing a file whole or not at all."""

import os
import secrets
from pathlib import Path

from rscl_bench.errors import ArtefactError


def write_atomic(path: Path, content: str | bytes) -> None:
    """Write a file so that a crash leaves the old file or the new one, never a part.

    The content goes to a temporary file in the same folder, is flushed to the disk, and takes the
    name in one step. Not promised: which of two processes that write the same path at the same
    moment wins.

    Args:
        path: Where to; its folder is made if missing.
        content: What; text is written as UTF-8 with its newlines as they are.

    Raises:
        ArtefactError: If the file cannot be written; an old file is then unchanged.
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
        _sync_folder(path.parent)
    except OSError as error:
        raise ArtefactError(
            f"{path} of {len(data)} bytes cannot be written ({error.strerror or error}); free "
            "space or mend the folder's permissions and write again."
        ) from error


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":  # other systems cannot open a folder, and journal the rename themselves
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
