"""The tile store: the tiles of one dataset split, packed once, then read as whole batches.

On disk, one folder per split and choice of bands, tile size and cut::

    tiles.raw       [N, H, W, C] uint8 or uint16, C order, memory-mapped
    shares.npy      [N, L] float32, only with labels: share of the tile's pixels of each class
    manifest.json   what the tiles are, their statistics, their source files and digests
    verified.json   what the system said of the files when their digests were last checked

Shares instead of labels, so that one packing serves every ``min_share``; an archive that gives
labels instead of masks has shares of 0 and 1.
"""

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.errors import ArchiveError, ArtefactError

FORMAT = 1
VERIFIED = "verified.json"
Stamp = dict[str, list[int]]


@dataclass(frozen=True)
class TileStore:
    """Packed tiles of one split.

    Attributes:
        tiles: ``[N, H, W, C]``, read-only memory map, ``uint8`` or ``uint16``.
        shares: Share of each tile's pixels that each class takes, ``[N, L]`` float32; 0 and 1
            where the archive gives labels instead of masks; None without labels.
        classes: Names of the L classes.
        mean: Mean per band in the declared unit, ``[C]`` float64.
        std: Deviation per band in the declared unit, ``[C]`` float64.
        scale: Value of full brightness in the declared unit.
        blank: Number of tiles that are zero everywhere.
        digest: SHA-256 of tiles, shares and what they are; part of a run's identity.
        path: The folder.
        skipped: Images that could not be used and were left out, as the user asked.
    """

    tiles: NDArray[Any]
    shares: NDArray[np.float32] | None
    classes: tuple[str, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    scale: float
    blank: int
    digest: str
    path: Path
    skipped: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of tiles."""
        return int(self.tiles.shape[0])

    def labels(self, min_share: float) -> NDArray[np.uint8]:
        """Return which classes take more than a share of each tile: ``[N, L]`` of 0 and 1.

        Raises:
            ArtefactError: If the tiles were packed without labels.
        """
        if self.shares is None:
            raise ArtefactError(f"{self.path} holds no labels; pack it again with labels.")
        return (self.shares > min_share).astype(np.uint8)


def verify(folder: Path) -> None:
    """Check every byte of a store against its manifest.

    Raises:
        ArtefactError: If a file is missing, or differs from what was packed.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise ArtefactError(f"{folder} has no readable manifest; delete the folder to pack again.")
    for name, digest in manifest["digests"].items():
        path = folder / name
        if not path.is_file() or file_digest(path) != digest:
            raise ArtefactError(
                f"{path} is not what was packed (SHA-256 differs); delete the folder {folder} to "
                "pack it again."
            )


def open_store(folder: Path, adapter: DatasetAdapter) -> TileStore:
    """Open packed tiles; every byte is checked unless the files are as when that was last done.

    Raises:
        ArtefactError: If a file is missing, or differs from what was packed.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise ArtefactError(f"{folder} has no readable manifest; delete the folder to pack again.")
    stamp = stamp_of(folder, manifest["digests"])
    if stamp is None or stamp != _verified(folder):
        verify(folder)
        remember_verified(folder, stamp)
    if manifest["count"] == 0:
        raise ArchiveError(f"{adapter.root} gave no tile for split '{adapter.split}'.")
    shares = folder / "shares.npy"
    derived = ("inputs", "mean", "std", "blank", "skipped")
    identity = {k: v for k, v in manifest.items() if k not in derived}
    return TileStore(
        tiles=np.memmap(folder / "tiles.raw", manifest["dtype"], "r", shape=_shape(manifest)),
        shares=np.load(shares, allow_pickle=False) if shares.is_file() else None,
        classes=tuple(manifest["classes"]),
        mean=np.array(manifest["mean"]),
        std=np.array(manifest["std"]),
        scale=manifest["scale"],
        blank=manifest["blank"],
        digest=sha256(canonical(identity)).hexdigest(),
        path=folder,
        skipped=tuple(manifest.get("skipped", ())),
    )


def stamp_of(folder: Path, names: Iterable[str]) -> Stamp | None:
    """Return size, times and number of files, which any write changes; None if one is missing.

    The time of the last change of status cannot be set back, unlike that of the content.
    """
    try:
        stats = {name: (folder / name).stat() for name in names}
    except FileNotFoundError:
        return None
    return {n: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for n, s in stats.items()}


def remember_verified(folder: Path, stamp: Stamp | None) -> None:
    """Keep the stamp that files had before they were found to be what was packed."""
    with suppress(OSError):  # a cache that is only read is checked every time
        temporary = folder / f".{VERIFIED}-{os.getpid()}"
        temporary.write_text(json.dumps(stamp), encoding="utf-8")
        temporary.replace(folder / VERIFIED)


def _verified(folder: Path) -> Any:
    try:
        return json.loads((folder / VERIFIED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _shape(manifest: dict[str, Any]) -> tuple[int, int, int, int]:
    size = manifest["tile_size"]
    return manifest["count"], size, size, len(manifest["bands"])


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what a store says of itself; None where there is none of this format."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def canonical(value: Any) -> bytes:
    """Return the one JSON text of a value, to be hashed."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
