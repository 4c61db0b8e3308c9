"""The tile store: the tiles of one dataset split, packed once and read as whole batches.

A store is one folder per split and choice of bands, tile size and cut::

    tiles.raw       [N, H, W, C] uint8 or uint16, C order, memory-mapped
    shares.npy      [N, L] float32, only with labels: share of each tile's pixels in each class
    manifest.json   description, statistics, digests of the tiles and of the source files
    verified.json   size, mtime, ctime and inode of the files when their digests were last verified
    place-*.json    folders of the archive; see `rscl_bench.tiles.places`

The store keeps class shares instead of labels, so that one store serves every ``min_share``. If an
archive has labels instead of masks, the shares are 0 and 1.
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.atomic import write_atomic
from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArchiveError, ArtefactError

#: Layout of the folder; a store of another format is packed again.
FORMAT = 2
VERIFIED = "verified.json"
#: Fields of the manifest that describe the packed pixels.
_PIXEL_FIELDS = (
    "dataset",
    "split",
    "options",
    "bands",
    "tile_size",
    "cut",
    "labels",
    "count",
    "classes",
    "scale",
    "unit",
    "dtype",
    "digests",
)
#: Size, mtime and ctime (in nanoseconds) and inode of each file, by file name.
Stamp = dict[str, list[int]]


@dataclass(frozen=True)
class TileStore:
    """Packed tiles of one split.

    Attributes:
        tiles: ``[N, H, W, C]``, read-only memory map, ``uint8`` or ``uint16``.
        shares: Share of each tile's pixels in each class, ``[N, L]`` float32; 0 and 1 if the
            archive has labels instead of masks; None without labels.
        classes: Names of the L classes.
        mean: Mean per band in the declared unit, ``[C]`` float64.
        std: Standard deviation per band in the declared unit, ``[C]`` float64.
        scale: Full brightness in the declared unit.
        blank: Number of tiles that are zero everywhere.
        digest: SHA-256 of tiles, shares and their description. It depends on the decoder's version.
        source_digest: SHA-256 of the source files and of how they are cut; part of a run's
            identity. See `rscl_bench.tiles.source_files`.
        path: The store's folder.
        skipped: Bad images that were skipped, by path in the archive.
        missing: Number of pixels of each band that the archive declares as missing; they are filled
            and stay out of mean and deviation.
        older: Number of stores of this split that an older version packed, if this one was packed
            now.
    """

    tiles: NDArray[Any]
    shares: NDArray[np.float32] | None
    classes: tuple[str, ...]
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    scale: float
    blank: int
    digest: str
    source_digest: str
    path: Path
    skipped: tuple[str, ...] = ()
    missing: tuple[int, ...] = ()
    older: int = 0

    @property
    def missing_share(self) -> float:
        """Largest share of a band's pixels that the archive declares as missing."""
        return max(self.missing, default=0) / max(self.tiles[..., 0].size, 1)

    def __len__(self) -> int:
        """Return the number of tiles."""
        return int(self.tiles.shape[0])

    def labels(self, min_share: float) -> NDArray[np.uint8]:
        """Return ``[N, L]`` of 0 and 1: 1 if a class takes more than ``min_share`` of a tile.

        Raises:
            ArtefactError: If the tiles were packed without labels.
        """
        if self.shares is None:
            raise ArtefactError(f"{self.path} holds no labels; pack it again with labels.")
        return (self.shares > min_share).astype(np.uint8)


def verify(folder: Path) -> None:
    """Check every byte of a store against its manifest.

    Raises:
        ArtefactError: If a file is missing or differs from the packed file.
    """
    manifest = _required_manifest(folder)
    for name, digest in manifest["digests"].items():
        path = folder / name
        if not path.is_file() or file_digest(path) != digest:
            raise ArtefactError(
                f"{path} was changed since packing (SHA-256 differs); delete the folder {folder} "
                "to pack the tiles again."
            )


def open_store(folder: Path, adapter: DatasetAdapter) -> TileStore:
    """Open a tile store; verify every byte unless no file was written since the last verification.

    Args:
        folder: The store's folder.
        adapter: The archive that was packed, named in errors.

    Raises:
        ArtefactError: If a file is missing or differs from the packed file.
        ArchiveError: If the store holds no tile.
    """
    manifest = _required_manifest(folder)
    stamp = stamp_of(folder, manifest["digests"])
    if stamp is None or stamp != _verified(folder):
        verify(folder)
        remember_verified(folder, stamp)
    if manifest["count"] == 0:
        raise ArchiveError(f"{adapter.root} has no tile in split '{adapter.split}'.")
    shares = folder / "shares.npy"
    return TileStore(
        tiles=np.memmap(folder / "tiles.raw", manifest["dtype"], "r", shape=_shape(manifest)),
        shares=np.load(shares, allow_pickle=False) if shares.is_file() else None,
        classes=tuple(manifest["classes"]),
        mean=np.array(manifest["mean"]),
        std=np.array(manifest["std"]),
        scale=manifest["scale"],
        blank=manifest["blank"],
        digest=_pixel_digest(manifest),
        source_digest=manifest["source_digest"],
        path=folder,
        skipped=tuple(manifest.get("skipped", ())),
        missing=tuple(manifest.get("missing", ())),
    )


def _pixel_digest(manifest: dict[str, Any]) -> str:
    # Records of format 2 hold these digests, so equal pixels keep the digest that they had.
    values = {"format": 1, **{name: manifest[name] for name in _PIXEL_FIELDS}}
    return sha256(canonical_json(values)).hexdigest()


def _required_manifest(folder: Path) -> dict[str, Any]:
    manifest = read_manifest(folder)
    if manifest is None:
        raise ArtefactError(
            f"{folder} has no readable manifest; delete the folder to pack the tiles again."
        )
    return manifest


def stamp_of(folder: Path, names: Iterable[str]) -> Stamp | None:
    """Return the stamp of files, which changes with every write; None if a file is missing.

    Programs can set an mtime back, but not a ctime.
    """
    try:
        stats = {name: (folder / name).stat() for name in names}
    except FileNotFoundError:
        return None
    return {n: [s.st_size, s.st_mtime_ns, s.st_ctime_ns, s.st_ino] for n, s in stats.items()}


def remember_verified(folder: Path, stamp: Stamp | None) -> None:
    """Save the stamp that the files had before their digests were verified."""
    with suppress(ArtefactError):  # A read-only store is verified every time.
        write_atomic(folder / VERIFIED, json.dumps(stamp))


def _verified(folder: Path) -> Any:
    try:
        return json.loads((folder / VERIFIED).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _shape(manifest: dict[str, Any]) -> tuple[int, int, int, int]:
    size = manifest["tile_size"]
    return manifest["count"], size, size, len(manifest["bands"])


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return a store's manifest; None if the folder has no manifest of this format."""
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
