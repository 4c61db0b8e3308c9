"""Packs the tiles of a split into a tile store, or opens the store if the tiles are packed.

Worker processes decode and cut scenes (`rscl_bench.tiles.workers`). One process receives the tiles
in order, appends them to ``tiles.raw`` and sums up their statistics (`rscl_bench.tiles.writer`), so
that the store does not depend on the number of workers. Packing happens in a hidden work folder
(`rscl_bench.tiles.work_folders`), which is renamed to the store's folder at the end. Every few
seconds a journal records the durable progress; interrupted packing resumes from the journal.

A store's folder is named by two keys: by all that the values of tiles depend on besides the source
files, and by the digest of the source files. Archives with equal files therefore share a store.
"""

import json
import re
import shutil
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from rscl_bench.atomic import sync_file, sync_folder, write_atomic
from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArchiveError, ArtefactError, RsclError
from rscl_bench.progress import Progress, silent
from rscl_bench.spec import OnBadTile, Source
from rscl_bench.tiles.cutting import SceneCutter
from rscl_bench.tiles.places import Place
from rscl_bench.tiles.source_files import UNREADABLE, description, source_digest
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
    """Open a split's tile store; pack the tiles first if no store has the archive's files.

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
    packing = _Packing(scenes, cache / "tiles", progress)
    folder, older = packing.find(), 0
    if folder is None:
        folder, older = packing.pack(), packing.count_older()
    packing.settle(folder)
    remove_abandoned(packing.tiles, packing.stem)
    store = open_store(folder, scenes.adapter)
    if store.skipped and on_bad_tile == "stop":
        raise ArchiveError(
            f"The tiles of {scenes.adapter.name} {source.split} were packed without "
            f"{len(store.skipped)} bad images, the first of which is {store.skipped[0]}; mend the "
            "archive, or skip bad images again with --on-bad-tile=skip."
        )
    return replace(store, older=older)


def _key(value: Any) -> str:
    return sha256(canonical_json(value)).hexdigest()[:16]


class _Packing:
    """One split of one archive, and the stores of it in the cache.

    Attributes:
        place: The archive's folder and the listing of its source files.
    """

    def __init__(self, scenes: SceneCutter, tiles: Path, progress: Progress):
        self.scenes, self.tiles, self.progress = scenes, tiles, progress
        adapter, source = scenes.adapter, scenes.source
        self.described = description(adapter, source, scenes.with_labels)
        self.listing = scenes.files.listing()
        self.place = Place(adapter.root.resolve(), _key(self.listing))
        self.split = f"{adapter.name} {source.split}"
        self.readable = re.sub(r"[^\w.-]+", "_", f"{adapter.name}-{source.split}")
        self.stem = f"{self.readable}-{_key(self.described)}"

    def find(self) -> Path | None:
        """Return the store that was packed from the files of the archive; None if there is none."""
        stores = dict(self._stores())
        for folder in stores:
            if self.place.is_known(folder):
                return folder
        sizes = {name: size for name, size, _ in self.listing}
        stores = {folder: files for folder, files in stores.items() if _sizes(files) == sizes}
        if stores:
            digests = self.scenes.files.digests(self.progress)
            for folder, files in stores.items():
                if {name: digest for name, (_, digest) in files.items()} == digests:
                    return folder
        return None

    def _stores(self) -> Iterator[tuple[Path, dict[str, list[Any]]]]:
        """Yield the stores of this description, with size and digest of their source files."""
        for folder in sorted(self.tiles.glob(f"{self.stem}-*")):
            manifest = read_manifest(folder)
            if manifest is not None:
                yield folder, manifest["files"]

    def count_older(self) -> int:
        """Return the number of stores of the split that an older version packed."""
        manifests = self.tiles.glob(f"{self.readable}-*/manifest.json")
        return sum(read_manifest(path.parent) is None for path in manifests)

    def pack(self) -> Path:
        """Pack the tiles, and return the folder of the store."""
        try:
            self.tiles.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArtefactError(
                f"The cache folder {self.tiles} is not writable ({error}); set RSCL_CACHE to a "
                "writable folder."
            ) from error
        try:
            return self._pack()
        except OSError as error:  # Errors of reading are ArchiveErrors, so this is one of writing.
            raise ArtefactError(
                f"The tiles of {self.split} cannot be written into {self.tiles} ({error}); make "
                "room there, or set RSCL_CACHE to another folder."
            ) from error
        except RuntimeError as error:
            if not str(error).startswith("DataLoader worker"):
                raise
            raise ArtefactError(
                f"A worker process that decodes {self.split} died "
                f"({' '.join(str(error).split())}), for lack of memory or because an image crashed "
                "the decoder; pack again."
            ) from error

    def _pack(self) -> Path:
        # Work on a changed archive has another name, so that it is not resumed.
        claim = self.tiles / f"{self.stem}-{self.place.listing}"
        with claimed(claim) as (work, lock):
            if (found := self.find()) is not None:
                return found  # Another process packed the tiles before we claimed the folder.
            # Remove first: the unfinished work on an outdated archive takes up room.
            remove_abandoned(self.tiles, self.stem, keep=work)
            with StoreWriter(work, self.scenes, _key([self.described, self.listing])) as writer:
                self._write_scenes(writer, lock)
                manifest = self._manifest(writer)
            self._check_unchanged()
            _finish(work, manifest)
            folder = self.tiles / f"{self.stem}-{manifest['source_digest'][:16]}"
            _move_into_place(work, folder)
        return folder

    def settle(self, store: Path) -> None:
        """Remember the place of a store; remove a store of files that lay in this place only."""
        known = self.place.is_known(store)
        self.place.remember(store)
        if known:
            return
        for folder, _ in self._stores():
            if folder != store and self.place.forget(folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _write_scenes(self, writer: StoreWriter, lock: int) -> None:
        adapter = self.scenes.adapter
        # `closing` ends the workers at once after an error or an interruption.
        with closing(cut_in_order(self.scenes, writer.scenes, lock)) as results:
            for tiles, digests in results:
                if isinstance(tiles, RsclError):
                    raise tiles
                writer.add(tiles, digests)
                self.progress(f"packing {self.split}", writer.scenes, len(adapter))
        if not writer.count:
            raise ArchiveError(
                f"None of the {len(adapter)} images of {self.split} in {adapter.root} can be used; "
                f"fetch them again from {adapter.source}."
            )

    def _manifest(self, writer: StoreWriter) -> dict[str, Any]:
        adapter = self.scenes.adapter
        digests = self.scenes.files.named(writer.source_digests())
        names = [adapter.canonical_path(adapter.root / path) for path in writer.skipped]
        for name, digest in digests.items():
            if digest == UNREADABLE.hex() and name not in names:
                raise ArchiveError(f"{name} in {adapter.root} cannot be read; mend the file.")
        return {
            "format": FORMAT,
            **self.described,
            "count": writer.count,
            "mean": writer.mean(),
            "std": writer.std(),
            "scale": adapter.sensor.scale,
            "unit": adapter.sensor.unit,
            "dtype": adapter.sensor.dtype,
            "blank": writer.blank,
            "missing": writer.missing.tolist(),
            "skipped": writer.skipped,
            "files": {name: [size, digests[name]] for name, size, _ in self.listing},
            "source_digest": source_digest(self.described, digests, names),
            "digests": writer.finish(),
        }

    def _check_unchanged(self) -> None:
        if self.scenes.files.listing() != self.listing:
            raise ArchiveError(
                f"Files of {self.split} in {self.scenes.adapter.root} were changed while they were "
                "packed; pack again when nothing writes there."
            )


def _sizes(files: dict[str, list[Any]]) -> dict[str, int]:
    return {name: size for name, (size, _) in files.items()}


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
