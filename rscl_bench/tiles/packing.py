"""Packs the tiles of a split into a tile store, or opens the store if the tiles are packed.

Worker processes decode and cut scenes (`rscl_bench.tiles.workers`). One process receives the tiles
in order, appends them to ``tiles.raw`` and sums up their statistics (`rscl_bench.tiles.writer`), so
that the store does not depend on the number of workers. Packing happens in a hidden work folder
(`rscl_bench.tiles.work_folders`), which is renamed to the store's folder at the end. Every few
seconds a journal records the durable progress; interrupted packing resumes from the journal.
"""

import json
import shutil
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.atomic import sync_file, sync_folder, write_atomic
from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArchiveError, ArtefactError, RsclError
from rscl_bench.progress import Progress, silent
from rscl_bench.spec import OnBadTile, Source
from rscl_bench.tiles.cutting import SceneCutter
from rscl_bench.tiles.store import (
    FORMAT,
    TileStore,
    open_store,
    read_manifest,
    remember_verified,
    stamp_of,
)
from rscl_bench.tiles.work_folders import claimed, remove_abandoned
from rscl_bench.tiles.workers import cut_in_order
from rscl_bench.tiles.writer import StoreWriter


def open_or_pack(
    data_root: Path,
    source: Source,
    cache: Path,
    with_labels: bool = False,
    progress: Progress = silent,
    on_bad_tile: OnBadTile = "stop",
) -> TileStore:
    """Open a split's tile store; pack the tiles first if there is no store or the archive changed.

    Interrupted packing resumes from its journal.

    Args:
        data_root: Folder that holds the archives.
        source: The split, its bands and how its scenes are cut.
        cache: Folder that holds all tile stores.
        with_labels: Whether the store has class shares.
        progress: Called with (what, done, total) while packing.
        on_bad_tile: Whether an image that cannot be used stops packing, or is skipped, counted and
            listed.

    Returns:
        The opened store, its digests checked as `open_store` does.

    Raises:
        ArchiveError: If the archive is missing or partial, or holds an unusable file.
        ArtefactError: If a stored tile was changed since packing, the cache is not writable, or a
            worker died.
    """
    scenes = SceneCutter(data_root, source, with_labels, on_bad_tile)
    adapter = scenes.adapter
    description = {
        "format": FORMAT,
        "dataset": adapter.name,
        "split": source.split,
        "options": source.options,
        "bands": list(source.bands),
        "tile_size": source.tile_size,
        "cut": source.cut,
        "labels": with_labels,
    }
    inputs = _input_listing(adapter)
    name = f"{adapter.name}-{source.split}-{_key([description, str(adapter.root.resolve())])}"
    # A changed archive gets another folder, so that a store is never replaced while it is read.
    folder = cache / "tiles" / f"{name}-{_key(inputs)}"
    if read_manifest(folder) is None:
        _pack(scenes, description, inputs, folder, progress)
        for outdated in set(folder.parent.glob(f"{name}-*")) - {folder}:
            shutil.rmtree(outdated, ignore_errors=True)
    remove_abandoned(folder)
    store = open_store(folder, adapter)
    if store.skipped and on_bad_tile == "stop":
        raise ArchiveError(
            f"The tiles of {adapter.name} {source.split} were packed without "
            f"{len(store.skipped)} bad images, the first of which is {store.skipped[0]}; mend the "
            "archive, or skip bad images again with --on-bad-tile=skip."
        )
    return store


def _input_listing(adapter: DatasetAdapter) -> list[list[Any]]:
    """Return path, size and mtime of each input file, which show whether the archive changed."""
    listing = []
    for path in adapter.inputs():
        try:
            stat = path.stat()
        except FileNotFoundError as error:
            raise adapter.missing(f"{path} does not exist") from error
        listing.append([path.relative_to(adapter.root).as_posix(), stat.st_size, stat.st_mtime_ns])
    return listing


def _key(value: Any) -> str:
    return sha256(canonical_json(value)).hexdigest()[:16]


def _pack(
    scenes: SceneCutter,
    description: dict[str, Any],
    inputs: list[list[Any]],
    folder: Path,
    progress: Progress,
) -> None:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ArtefactError(
            f"The cache folder {folder.parent} is not writable ({error}); set RSCL_CACHE to a "
            "writable folder."
        ) from error
    split = f"{scenes.adapter.name} {scenes.source.split}"
    try:
        with claimed(folder) as (work, lock):
            if read_manifest(folder) is not None:
                return  # Another process packed the tiles before we claimed the folder.
            # Remove first: the unfinished work on an outdated archive takes up room.
            remove_abandoned(folder, keep=work)
            with StoreWriter(work, scenes, _key([description, inputs])) as writer:
                _write_scenes(scenes, writer, lock, progress)
                manifest = _manifest(scenes, writer, description, inputs)
            _finish(work, manifest)
            _move_into_place(work, folder)
    except OSError as error:  # Errors of reading are ArchiveErrors, so this is an error of writing.
        raise ArtefactError(
            f"The tiles of {split} cannot be written into {folder.parent} ({error}); make room "
            "there, or set RSCL_CACHE to another folder."
        ) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise ArtefactError(
            f"A worker process that decodes {split} died ({' '.join(str(error).split())}), for "
            "lack of memory or because an image crashed the decoder; pack again."
        ) from error


def _write_scenes(scenes: SceneCutter, writer: StoreWriter, lock: int, progress: Progress) -> None:
    adapter = scenes.adapter
    # `closing` ends the workers at once after an error or an interruption.
    with closing(cut_in_order(scenes, writer.scenes, lock)) as results:
        for result in results:
            if isinstance(result, RsclError):
                raise result
            writer.add(result)
            progress(f"packing {adapter.name} {scenes.source.split}", writer.scenes, len(adapter))
    if not writer.count:
        raise ArchiveError(
            f"None of the {len(adapter)} images of {adapter.name} {scenes.source.split} in "
            f"{adapter.root} can be used; fetch them again from {adapter.source}."
        )


def _manifest(
    scenes: SceneCutter, writer: StoreWriter, description: dict[str, Any], inputs: list[list[Any]]
) -> dict[str, Any]:
    adapter = scenes.adapter
    return {
        **description,
        "count": writer.count,
        "classes": list(adapter.classes) if scenes.with_labels else [],
        "mean": writer.mean(),
        "std": writer.std(),
        "scale": adapter.sensor.scale,
        "unit": adapter.sensor.unit,
        "blank": writer.blank,
        "missing": writer.missing.tolist(),
        "skipped": writer.skipped,
        "inputs": inputs,
        "dtype": adapter.sensor.dtype,
        "digests": writer.finish(),
    }


def _finish(work: Path, manifest: dict[str, Any]) -> None:
    """Write the manifest, flush the store's files and remove all others."""
    write_atomic(work / "manifest.json", json.dumps(manifest, indent=1))
    for path in work.iterdir():
        if path.name in manifest["digests"]:
            sync_file(path)
        elif path.name != "manifest.json":
            path.unlink()
    # The digests were computed while writing, so the files need not be read again.
    remember_verified(work, stamp_of(work, manifest["digests"]))


def _move_into_place(work: Path, folder: Path) -> None:
    if folder.exists() and read_manifest(folder) is None:
        shutil.rmtree(folder)
    try:
        work.rename(folder)
    except OSError:
        # Another process packed the same tiles in the meantime; its store is equal to ours.
        if read_manifest(folder) is None:
            raise
        shutil.rmtree(work)
    sync_folder(folder.parent)
