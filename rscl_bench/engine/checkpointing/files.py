"""Checkpoints of a run: files that are whole or not there, and that know when they are damaged.

Safetensors with one JSON text in the header, no pickle. A file's name ends with the SHA-256 of its
content, so that a truncated file or a single flipped bit shows. The last two are kept.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from rscl_bench.atomic import write_atomic
from rscl_bench.engine.checkpointing.state import Snapshot
from rscl_bench.errors import ArtefactError

FOLDER = "checkpoints"
_KEPT = 2
_NAME = re.compile(r"(\d{6})-([0-9a-f]{64})\.safetensors")
_KEY = "rscl_bench"


def write_checkpoint(folder: Path, snapshot: Snapshot, fast: bool = False) -> Path:
    """Write the next checkpoint, read it again, and only then remove all but the last two.

    Args:
        folder: Of this run's checkpoints.
        snapshot: What to write.
        fast: Whether to leave it unread, and the older ones where they are: reading it later
            shows damage too.

    Raises:
        ArtefactError: If it cannot be written, or is not on the disk as it was written; the
            earlier ones are then unchanged.
    """
    tensors = {name: _plain(value) for name, value in snapshot.tensors.items()}
    # One key: safetensors writes several in an order that changes from run to run.
    content = save(tensors, {_KEY: json.dumps(snapshot.metadata, sort_keys=True)})
    digest = hashlib.sha256(content).hexdigest()
    known = _files(folder)
    number = 1 + (int(known[-1].name[:6]) if known else 0)
    path = folder / f"{number:06}-{digest}.safetensors"
    write_atomic(path, content)
    if fast:
        return path
    if not _is_whole(path):
        raise ArtefactError(
            f"{path} of {len(content)} bytes is not on the disk as it was written; check the disk. "
            "The checkpoint before it is unchanged."
        )
    for old in _files(folder)[:-_KEPT]:
        old.unlink()
    return path


def read_checkpoint(folder: Path, message: Callable[[str], None]) -> Snapshot | None:
    """Return the latest checkpoint that is whole, None if there is none.

    Args:
        folder: Of a run's checkpoints.
        message: Told of every damaged one that is passed over.
    """
    for path in reversed(_files(folder)):
        if _is_whole(path):
            try:
                return _read(path)
            except (SafetensorError, KeyError, TypeError, ValueError) as error:  # of other code
                message(f"{path} is no checkpoint of this version ({error}); passed over")
                continue
        message(f"{path} is damaged: its SHA-256 is not that of its name; passed over")
    return None


def latest_metadata(folder: Path) -> dict[str, Any] | None:
    """Return the metadata of the latest readable checkpoint, or None."""
    for path in reversed(_files(folder)):
        try:
            with safe_open(path, framework="pt") as file:
                metadata: dict[str, Any] = json.loads(file.metadata()[_KEY])
                return metadata
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove a run's checkpoints, and parts of one that was being written."""
    for path in [*_files(folder), *folder.glob(".*.tmp")]:
        path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _files(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    return sorted(path for path in folder.glob("*.safetensors") if _NAME.fullmatch(path.name))


def _is_whole(path: Path) -> bool:
    found = _NAME.fullmatch(path.name)
    assert found is not None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == found[2]


def _read(path: Path) -> Snapshot:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, Any] = json.loads(file.metadata()[_KEY])
        names = list(file.keys())  # it is no dictionary, and cannot be iterated
        return Snapshot({name: file.get_tensor(name) for name in names}, metadata)


def _plain(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous()
