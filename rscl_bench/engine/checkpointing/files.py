"""The files of checkpoints: complete or absent, and damage shows.

A file is safetensors with one JSON text in the header, no pickle. The name of a file ends with the
SHA-256 of its content, so that a truncation or a single flipped bit shows. The last two are kept.
"""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rscl_bench.atomic import write_atomic
from rscl_bench.engine.checkpointing.state import Snapshot
from rscl_bench.errors import ArtefactError

FOLDER = "checkpoints"
_KEPT = 2
_NAME = re.compile(r"(\d{6,})-([0-9a-f]{64})\.safetensors")
_KEY = "rscl_bench"


def write_checkpoint(folder: Path, snapshot: Snapshot, fast: bool = False) -> Path:
    """Write the next checkpoint, read it again, and then remove all but the last two.

    Args:
        folder: Folder of the run's checkpoints.
        snapshot: The state to write.
        fast: Whether to skip the reading and the removal, because the process is about to exit.

    Raises:
        ArtefactError: If the file cannot be written, or the disk returns other bytes than were
            written; earlier checkpoints are then unchanged.
    """
    tensors = {name: v.detach().cpu().contiguous() for name, v in snapshot.tensors.items()}
    # One key: safetensors writes several keys in an order that changes from run to run.
    content = save(tensors, {_KEY: json.dumps(snapshot.metadata, sort_keys=True)})
    digest = hashlib.sha256(content).hexdigest()
    earlier = _files(folder)
    number = 1 + (_number(earlier[-1]) if earlier else 0)
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
        old.unlink(missing_ok=True)
    return path


def read_checkpoint(folder: Path, message: Callable[[str], None]) -> Snapshot | None:
    """Return the latest whole checkpoint, or None without one.

    Args:
        folder: Folder of the run's checkpoints.
        message: Prints one line for every checkpoint that is skipped.
    """
    for path in reversed(_files(folder)):
        try:
            if _is_whole(path):
                return _read(path)
            message(f"{path} is damaged: its SHA-256 differs from its name; skipped")
        except OSError as error:
            message(f"{path} cannot be read ({error.strerror or error}); skipped")
        except (SafetensorError, KeyError, TypeError, ValueError) as error:  # of other code
            message(f"{path} is no checkpoint of this version ({error}); skipped")
    return None


def latest_metadata(folder: Path) -> dict[str, Any] | None:
    """Return the metadata of the latest checkpoint with a readable header, or None without one."""
    for path in reversed(_files(folder)):
        try:
            with safe_open(path, framework="pt") as file:
                metadata: dict[str, Any] = json.loads(file.metadata()[_KEY])
                return metadata
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            continue
    return None


def remove_checkpoints(folder: Path) -> None:
    """Remove a run's checkpoints, and temporary files of an interrupted write."""
    for path in [*_files(folder), *folder.glob(".*.tmp")]:
        if not path.is_dir():
            path.unlink(missing_ok=True)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _files(folder: Path) -> list[Path]:
    """Return the checkpoints of a folder, oldest first."""
    named = (path for path in folder.glob("*.safetensors") if _NAME.fullmatch(path.name))
    return sorted(named, key=lambda path: (_number(path), path.name))


def _number(path: Path) -> int:
    return int(path.name.partition("-")[0])


def _is_whole(path: Path) -> bool:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == match[2]


def _read(path: Path) -> Snapshot:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, Any] = json.loads(file.metadata()[_KEY])
        names = list(file.keys())  # a list, because the file itself cannot be iterated
        return Snapshot({name: file.get_tensor(name) for name in names}, metadata)
