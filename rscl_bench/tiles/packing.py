"""Packing: the tiles of a split, decoded by several processes and written by one.

Worker processes decode and cut scenes; this one takes their tiles in order, appends them to
``tiles.raw`` and adds up the statistics, so that what comes out does not depend on the number of
processes. It works in a hidden folder, which takes the store's name at the end. Every few seconds
a journal says what is on the disk for sure; packing that was interrupted goes on from there.
"""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from hashlib import sha256
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.errors import ArchiveError, ArtefactError, RsclError
from rscl_bench.progress import Progress, silent
from rscl_bench.spec import OnBadTile, Source, Spec
from rscl_bench.tiles.cutting import Cut, SceneCutter, cut_in_order
from rscl_bench.tiles.store import (
    FORMAT,
    TileStore,
    canonical,
    file_digest,
    open_store,
    read_manifest,
    remember_verified,
    stamp_of,
)

JOURNAL = "journal.json"
JOURNAL_SECONDS = 5.0


def open_or_pack(
    data_root: Path,
    source: Source,
    cache: Path,
    with_labels: bool = False,
    progress: Progress = silent,
    on_bad_tile: OnBadTile = "stop",
) -> TileStore:
    """Return a split's tiles, packing them first if they are not there or their archive changed.

    Packing that was interrupted goes on where its journal says.

    Args:
        data_root: Folder that holds the archives.
        source: What to read, and how to cut it.
        cache: Folder of all tile stores.
        with_labels: Whether labels are wanted too.
        progress: Called with (what, done, total) while packing.
        on_bad_tile: Whether an image that cannot be used stops packing, or is left out, counted and
            listed.

    Returns:
        The opened store, its digests checked as `open_store` does.

    Raises:
        ArchiveError: If the archive is missing, partial or holds an unusable file.
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
    _remove_abandoned(folder)
    store = open_store(folder, adapter)
    if store.skipped and on_bad_tile == "stop":
        raise ArchiveError(
            f"{len(store.skipped)} images of {adapter.name} {source.split} were left out when it "
            f"was packed, {store.skipped[0]} the first; mend the archive, or leave them out again "
            "with --on-bad-tile=skip."
        )
    return store


def _input_listing(adapter: DatasetAdapter) -> list[list[Any]]:
    """Return path, size and time of every input: cheap, and enough to see a changed archive."""
    listing = []
    for path in adapter.inputs():
        try:
            stat = path.stat()
        except FileNotFoundError as error:
            raise adapter.missing(f"{path} does not exist") from error
        listing.append([path.relative_to(adapter.root).as_posix(), stat.st_size, stat.st_mtime_ns])
    return listing


def _key(value: Any) -> str:
    return sha256(canonical(value)).hexdigest()[:16]


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
            "folder that is."
        ) from error
    split = f"{scenes.adapter.name} {scenes.source.split}"
    try:
        with _claimed(folder) as (work, lock):
            if read_manifest(folder) is not None:
                return  # another process packed it between looking and claiming
            # Before packing, since what was begun of an archive that changed takes up room.
            _remove_abandoned(folder, but=work)
            with _Writer(work, scenes, _key([description, inputs])) as writer:
                _write_scenes(scenes, writer, lock, progress)
                manifest = _manifest(scenes, writer, description, inputs)
            _finish(work, manifest)
            _move_into_place(work, folder)
    except OSError as error:  # reading fails as an ArchiveError, so this is writing
        raise ArtefactError(
            f"The tiles of {split} cannot be written into {folder.parent} ({error}); make room "
            "there, or set RSCL_CACHE to another folder."
        ) from error
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker"):
            raise
        raise ArtefactError(
            f"A process that decodes {split} died ({' '.join(str(error).split())}), for lack of "
            "memory or by an image that crashes its decoder; pack again."
        ) from error


def _write_scenes(
    scenes: SceneCutter, writer: "_Writer", lock: int | None, progress: Progress
) -> None:
    adapter = scenes.adapter
    # Closing ends the workers at once, whatever happens here.
    with closing(cut_in_order(scenes, writer.scenes, writer.work, lock)) as results:
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
    scenes: SceneCutter, writer: "_Writer", description: dict[str, Any], inputs: list[list[Any]]
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
        "skipped": writer.skipped,
        "inputs": inputs,
        "dtype": adapter.sensor.dtype,
        "digests": writer.digests(),
    }


def _finish(work: Path, manifest: dict[str, Any]) -> None:
    (work / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for path in work.iterdir():
        if path.name in ("manifest.json", *manifest["digests"]):
            _fsync(path)
        else:
            path.unlink()
    # The digests are of what was written, so that nothing needs to be read again.
    remember_verified(work, stamp_of(work, manifest["digests"]))
    _fsync(work)


def _move_into_place(work: Path, folder: Path) -> None:
    if folder.exists() and read_manifest(folder) is None:
        shutil.rmtree(folder)
    try:
        work.rename(folder)
    except OSError:
        # Another process packed the same tiles in the meantime; its copy is as good as ours.
        if read_manifest(folder) is None:
            raise
        shutil.rmtree(work)
    _fsync(folder.parent)


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class _Part(Spec):
    """A file's first bytes: how many, and their SHA-256."""

    length: int
    digest: str


class _Journal(Spec):
    """What is on the disk for sure, and the sums over it."""

    key: str
    scenes: int
    count: int
    blank: int
    sums: list[float]
    squares: list[float]
    skipped: list[str]
    files: dict[str, _Part]


class _Appended:
    """A file that only grows, and the SHA-256 of what is in it."""

    def __init__(self, path: Path):
        self.file = path.open("a+b")
        self.digest, self.length = sha256(), 0

    def append(self, array: NDArray[Any]) -> None:
        data = array.data.cast("B")
        self.file.write(data)
        self.digest.update(data)
        self.length += len(data)

    def flush(self) -> _Part:
        self.file.flush()
        os.fsync(self.file.fileno())
        return _Part(length=self.length, digest=self.digest.hexdigest())

    def resume(self, part: _Part) -> bool:
        """Read a first part again, so that appending goes on behind it; false if it differs."""
        self.file.seek(0)
        while block := self.file.read(min(1 << 22, part.length - self.length)):
            self.digest.update(block)
            self.length += len(block)
        self.file.truncate(self.length)
        return self.length == part.length and self.digest.hexdigest() == part.digest

    def clear(self) -> None:
        self.file.truncate(0)
        self.digest, self.length = sha256(), 0


class _Writer:
    """Appends tiles to the files of a work folder; keeps band sums for the statistics.

    It starts behind what the folder's journal says was written, if that is there and fits.
    """

    def __init__(self, work: Path, scenes: SceneCutter, key: str):
        self.work, self.key = work, key
        self.adapter, self.size = scenes.adapter, scenes.source.tile_size
        bands = len(scenes.source.bands)
        names = ("tiles.raw", "shares.raw") if scenes.with_labels else ("tiles.raw",)
        self.files = {name: _Appended(work / name) for name in names}
        self.scenes, self.count, self.blank = 0, 0, 0
        self.sums, self.squares = np.zeros(bands), np.zeros(bands)
        self.skipped: list[str] = []
        self.saved = time.monotonic()
        self._resume(scenes.on_bad_tile)

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self.files.values():
            file.file.close()

    def _resume(self, on_bad_tile: OnBadTile) -> None:
        try:
            journal = _Journal.model_validate_json((self.work / JOURNAL).read_bytes())
        except (OSError, ValidationError):
            journal = None
        # What was left out before must be named now if it is no longer to be left out.
        if (
            journal is None
            or journal.key != self.key
            or (journal.skipped and on_bad_tile == "stop")
            or journal.files.keys() != self.files.keys()
            or not all(file.resume(journal.files[name]) for name, file in self.files.items())
        ):
            (self.work / JOURNAL).unlink(missing_ok=True)
            for file in self.files.values():
                file.clear()
            return
        self.scenes, self.count, self.blank = journal.scenes, journal.count, journal.blank
        self.sums, self.squares = np.array(journal.sums), np.array(journal.squares)
        self.skipped = journal.skipped

    def add(self, scene: Cut | None) -> None:
        """Append the tiles of the next scene, or note that it is left out."""
        if scene is None:
            path = self.adapter.files[self.scenes].relative_to(self.adapter.root)
            self.skipped.append(path.as_posix())
        else:
            self.files["tiles.raw"].append(scene.tiles)
            if scene.shares is not None:
                self.files["shares.raw"].append(scene.shares)
            # Tile by tile: floating-point sums depend on the order.
            for sums, squares in zip(scene.sums, scene.squares, strict=True):
                self.sums += sums
                self.squares += squares
            self.blank += scene.blank
            self.count += len(scene.tiles)
        self.scenes += 1
        if time.monotonic() - self.saved >= JOURNAL_SECONDS:
            self._save()

    def _save(self) -> None:
        journal = _Journal(
            key=self.key,
            scenes=self.scenes,
            count=self.count,
            blank=self.blank,
            sums=self.sums.tolist(),
            squares=self.squares.tolist(),
            skipped=self.skipped,
            files={name: file.flush() for name, file in self.files.items()},
        )
        temporary = self.work / f"{JOURNAL}.tmp"
        temporary.write_text(journal.model_dump_json(), encoding="utf-8")
        _fsync(temporary)
        temporary.replace(self.work / JOURNAL)
        self.saved = time.monotonic()

    def digests(self) -> dict[str, str]:
        """Write what is left, and return the digests of the store's files."""
        digests = {}
        if "shares.raw" in self.files:
            self.files["shares.raw"].flush()
            shares = np.fromfile(self.work / "shares.raw", np.float32).reshape(self.count, -1)
            np.save(self.work / "shares.npy", shares)
            digests["shares.npy"] = file_digest(self.work / "shares.npy")
        return {**digests, "tiles.raw": self.files["tiles.raw"].flush().digest}

    def _pixels(self) -> int:
        return self.count * self.size * self.size

    def mean(self) -> list[float]:
        return [float(value) for value in self.sums / self._pixels()]

    def std(self) -> list[float]:
        variance = self.squares / self._pixels() - np.square(self.sums / self._pixels())
        return [float(value) for value in np.sqrt(np.maximum(variance, 0))]


# One process for one work folder.


@contextmanager
def _claimed(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield a store's first work folder that nobody else packs in, and the handle of its lock.

    It stays, to be resumed, if packing is interrupted after the first journal.
    """
    for number in count():
        work = folder.parent / f".{folder.name}-{number}"
        with _locked(work) as lock:
            if lock is None:
                continue
            work.mkdir(exist_ok=True)
            try:
                yield work, lock
            finally:
                if not (work / JOURNAL).is_file():
                    shutil.rmtree(work, ignore_errors=True)
            return


@contextmanager
def _locked(work: Path) -> Iterator[int | None]:
    """Hold the lock of a work folder, if nobody else does; the system frees it when we die."""
    path = work.with_name(f"{work.name}.lock")
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    held = False
    try:
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have deleted the file since we opened it.
            held = os.path.samestat(os.fstat(handle), path.stat())
        yield handle if held else None
    finally:
        if held:
            path.unlink(missing_ok=True)
        os.close(handle)


def _remove_abandoned(folder: Path, but: Path | None = None) -> None:
    """Remove the work folders that nobody packs in: of this store, and of it when outdated."""
    for work in folder.parent.glob(f".{folder.name.rpartition('-')[0]}-*"):
        if work == but or not work.is_dir():
            continue
        with suppress(OSError), _locked(work) as lock:
            if lock is not None:
                shutil.rmtree(work, ignore_errors=True)
