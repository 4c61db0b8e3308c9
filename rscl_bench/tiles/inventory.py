"""What the cache holds, and the removal of what is no longer needed."""

import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.sketch import VERSION
from rscl_bench.errors import ArtefactError
from rscl_bench.scratch import locked, work_folders
from rscl_bench.tiles.places import places
from rscl_bench.tiles.store import FORMAT
from rscl_bench.tiles.work_folders import PATTERN


@dataclass(frozen=True)
class CacheEntry:
    """One folder of the cache.

    Attributes:
        kind: ``tiles`` of a split, a rendered ``sketch``, or ``unfinished`` work.
        dataset: Name of the dataset; for a sketch, of the archive's folder.
        split: Name of the split; empty for a sketch and for unfinished work.
        path: The folder.
        size: Bytes of its files.
        tiles: Number of tiles; None unless it holds tiles.
        used: When its tiles were last opened; None where this is not known.
        unused: Why no run needs it; empty if a run may need it.
    """

    kind: Literal["tiles", "sketch", "unfinished"]
    dataset: str
    split: str
    path: Path
    size: int
    tiles: int | None
    used: datetime | None
    unused: str


def entries(cache: Path) -> list[CacheEntry]:
    """Return everything in a cache that may be removed, sorted by dataset and split.

    Args:
        cache: The cache folder.
    """
    found = [*_stores(cache / "tiles"), *_sketches(cache), *_unfinished(cache)]
    return sorted(found, key=lambda entry: (entry.kind, entry.dataset, entry.split, entry.path))


def remove(chosen: Iterable[CacheEntry]) -> None:
    """Remove folders of the cache. Work that another process has locked stays.

    A run that reads tiles goes on: the files vanish when the run closes them.

    Raises:
        ArtefactError: If a folder cannot be removed.
    """
    for entry in chosen:
        try:
            if entry.kind != "unfinished":
                shutil.rmtree(entry.path)
                continue
            with locked(entry.path) as lock:
                if lock is not None and entry.path.exists():
                    shutil.rmtree(entry.path)
        except OSError as error:
            raise ArtefactError(
                f"{entry.path} cannot be removed ({error.strerror or error}); mend the permissions "
                "of the cache."
            ) from error


def _stores(tiles: Path) -> Iterator[CacheEntry]:
    for path in sorted(tiles.glob("[!.]*/manifest.json")):
        manifest = _manifest(path)
        known = places(path.parent)
        used = max((seconds for _, seconds in known), default=None)
        folders = [place.folder for place, _ in known]
        if manifest.get("format") != FORMAT:
            unused = "packed by an older version"
        elif folders and not any(folder.is_dir() for folder in folders):
            unused = f"no archive in {folders[0]} any more"
        else:
            unused = ""
        yield CacheEntry(
            kind="tiles",
            dataset=str(manifest.get("dataset", path.parent.name)),
            split=str(manifest.get("split", "")),
            path=path.parent,
            size=_size(path.parent),
            tiles=manifest.get("count"),
            used=None if used is None else datetime.fromtimestamp(used, UTC),
            unused=unused,
        )


def _manifest(path: Path) -> dict[str, Any]:
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _sketches(cache: Path) -> Iterator[CacheEntry]:
    for marker in sorted(cache.glob(f"sketch-v*/[!.]*/{SKETCH_MARKER}")):
        folder = marker.parent
        if folder.is_symlink():
            continue
        old = folder.parent.name.split("-")[1] != f"v{VERSION}"
        yield CacheEntry(
            kind="sketch",
            dataset=folder.name,
            split="",
            path=folder,
            size=_size(folder),
            tiles=None,
            used=None,
            unused="drawn by an older version" if old else "",
        )


def _unfinished(cache: Path) -> Iterator[CacheEntry]:
    folders = work_folders(cache / "tiles", PATTERN)
    for sketches in sorted(cache.glob("sketch-v*")):
        # The second form is that of version 0.3 and earlier.
        folders += work_folders(sketches, r"\.rscl-bench-sketching-\d+|\.[\w-]+-\w{8}")
    for folder in filter(_is_abandoned, folders):
        yield CacheEntry(
            kind="unfinished",
            dataset=folder.name.lstrip(".").partition("-")[0],
            split="",
            path=folder,
            size=_size(folder),
            tiles=None,
            used=None,
            unused="left by a process that was interrupted",
        )


def _is_abandoned(folder: Path) -> bool:
    try:
        with locked(folder) as lock:
            return lock is not None and folder.is_dir()
    except OSError:  # a read-only cache
        return False


def _size(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        with suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size
