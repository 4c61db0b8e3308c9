"""Appends tiles to the files of a work folder, with a journal from which packing resumes."""

import os
import time
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from rscl_bench.atomic import write_atomic
from rscl_bench.spec import OnBadTile, Spec
from rscl_bench.tiles.cutting import SceneCutter, SceneTiles
from rscl_bench.tiles.store import file_digest
from rscl_bench.tiles.work_folders import JOURNAL

JOURNAL_SECONDS = 5.0
#: File of the SHA-256 of each source file, in the order of the scenes.
DIGESTS = "digests.raw"


class _Prefix(Spec):
    """The first bytes of a file: their number and their SHA-256."""

    length: int
    digest: str


class _Journal(Spec):
    """Durable progress: the scenes whose tiles are flushed to the disk, and their statistics.

    Attributes:
        key: Hash of the store's description and of its input files.
        scenes: Number of scenes, skipped ones included.
        count: Number of tiles.
        blank: Number of tiles that are zero everywhere.
        missing: Number of pixels of each band that the archive declares as missing.
        sums: Sum of the other pixels of each band.
        squares: Sum of the squares of the other pixels of each band.
        skipped: Skipped scenes, by path in the archive.
        files: The flushed prefix of each file.
    """

    key: str
    scenes: int
    count: int
    blank: int
    missing: list[int]
    sums: list[float]
    squares: list[float]
    skipped: list[str]
    files: dict[str, _Prefix]


class _AppendedFile:
    """A file that only grows, and the SHA-256 of its content."""

    def __init__(self, path: Path):
        self.file = path.open("a+b")
        self.digest, self.length = sha256(), 0

    def append(self, data: memoryview | bytes) -> None:
        self.file.write(data)
        self.digest.update(data)
        self.length += len(data)

    def flush(self) -> _Prefix:
        """Flush the content to the disk and describe the content."""
        self.file.flush()
        os.fsync(self.file.fileno())
        return _Prefix(length=self.length, digest=self.digest.hexdigest())

    def resume(self, prefix: _Prefix) -> bool:
        """Verify the prefix and cut the file after the prefix; return False on a mismatch."""
        self.file.seek(0)
        while block := self.file.read(min(1 << 22, prefix.length - self.length)):
            self.digest.update(block)
            self.length += len(block)
        self.file.truncate(self.length)
        return self.length == prefix.length and self.digest.hexdigest() == prefix.digest

    def clear(self) -> None:
        self.file.truncate(0)
        self.digest, self.length = sha256(), 0


class StoreWriter:
    """Appends the tiles of scenes to the files of a work folder and sums up their statistics.

    The writer resumes after the scenes in the folder's journal, if the journal is of the same store
    and the files have the journal's SHA-256. Otherwise the writer starts with empty files.

    Args:
        work: The work folder.
        scenes: The scenes that will be added.
        key: Hash of the store's description and of its input files.

    Attributes:
        scenes: Number of scenes so far, skipped ones included; also the index of the next scene.
        count: Number of tiles so far.
        blank: Number of tiles so far that are zero everywhere.
        missing: Number of pixels of each band that the archive declares as missing, ``[C]``.
        skipped: Scenes skipped so far, by path in the archive.
    """

    def __init__(self, work: Path, scenes: SceneCutter, key: str):
        self.work, self.key = work, key
        self.adapter, self.size = scenes.adapter, scenes.source.tile_size
        names = ("tiles.raw", DIGESTS, *(("shares.raw",) if scenes.with_labels else ()))
        self.files = {name: _AppendedFile(work / name) for name in names}
        self.scenes, self.count, self.blank = 0, 0, 0
        bands = len(scenes.source.bands)
        self.sums, self.squares = np.zeros(bands), np.zeros(bands)
        self.missing = np.zeros(bands, np.int64)
        self.skipped: list[str] = []
        self._saved_at = time.monotonic()
        self._resume(scenes.on_bad_tile)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:  # closes all files, although closing fails on a full disk
            for file in self.files.values():
                stack.callback(file.file.close)

    def _resume(self, on_bad_tile: OnBadTile) -> None:
        journal = self._read_journal()
        # If bad scenes are no longer skipped, the earlier ones must stop packing by name.
        if (
            journal is None
            or (journal.skipped and on_bad_tile == "stop")
            or not all(file.resume(journal.files[name]) for name, file in self.files.items())
        ):
            (self.work / JOURNAL).unlink(missing_ok=True)
            for file in self.files.values():
                file.clear()
            return
        self.scenes, self.count, self.blank = journal.scenes, journal.count, journal.blank
        self.sums, self.squares = np.array(journal.sums), np.array(journal.squares)
        self.missing = np.array(journal.missing)
        self.skipped = journal.skipped

    def _read_journal(self) -> _Journal | None:
        """Return the folder's journal; None if there is none for this store."""
        try:
            journal = _Journal.model_validate_json((self.work / JOURNAL).read_bytes())
        except (OSError, ValidationError):
            return None
        fits = journal.key == self.key and journal.files.keys() == self.files.keys()
        return journal if fits else None

    def add(self, scene: SceneTiles | None, digests: bytes) -> None:
        """Append the tiles of the next scene, or note that the scene is skipped if it is None.

        Args:
            scene: The tiles.
            digests: SHA-256 of the scene's source files, one after the other.
        """
        self.files[DIGESTS].append(digests)
        if scene is None:
            self.skipped.append(self.adapter.scene_name(self.scenes))
        else:
            self._append(scene)
        self.scenes += 1
        if time.monotonic() - self._saved_at >= JOURNAL_SECONDS:
            self._save_journal()

    def _append(self, scene: SceneTiles) -> None:
        self.files["tiles.raw"].append(scene.tiles.data.cast("B"))
        if scene.shares is not None:
            self.files["shares.raw"].append(scene.shares.data.cast("B"))
        # Add tile by tile: floating-point sums depend on the order.
        for sums, squares in zip(scene.sums, scene.squares, strict=True):
            self.sums += sums
            self.squares += squares
        self.missing += scene.missing.sum(axis=0)
        self.blank += scene.blank
        self.count += len(scene.tiles)

    def _save_journal(self) -> None:
        journal = _Journal(
            key=self.key,
            scenes=self.scenes,
            count=self.count,
            blank=self.blank,
            missing=self.missing.tolist(),
            sums=self.sums.tolist(),
            squares=self.squares.tolist(),
            skipped=self.skipped,
            files={name: file.flush() for name, file in self.files.items()},
        )
        write_atomic(self.work / JOURNAL, journal.model_dump_json())
        self._saved_at = time.monotonic()

    def finish(self) -> dict[str, str]:
        """Write ``shares.npy``, flush all files, and return the SHA-256 of each store file."""
        digests = {}
        if "shares.raw" in self.files:
            self.files["shares.raw"].flush()
            shares = np.fromfile(self.work / "shares.raw", np.float32).reshape(self.count, -1)
            np.save(self.work / "shares.npy", shares)
            digests["shares.npy"] = file_digest(self.work / "shares.npy")
        return {**digests, "tiles.raw": self.files["tiles.raw"].flush().digest}

    def source_digests(self) -> bytes:
        """Return the SHA-256 of each source file, in the order of the scenes."""
        self.files[DIGESTS].flush()
        return (self.work / DIGESTS).read_bytes()

    def mean(self) -> list[float]:
        """Return the mean of each band, in the declared unit."""
        return [float(value) for value in self.sums / self._pixels()]

    def std(self) -> list[float]:
        """Return the standard deviation of each band, in the declared unit."""
        variance = self.squares / self._pixels() - np.square(self.sums / self._pixels())
        return [float(value) for value in np.sqrt(np.maximum(variance, 0))]

    def _pixels(self) -> NDArray[np.int64]:
        """Return the number of measured pixels of each band, at least 1."""
        return np.maximum(self.count * self.size * self.size - self.missing, 1)
