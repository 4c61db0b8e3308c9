"""The tile store: the tiles of one dataset split, packed once, then read as whole batches.

On disk, one folder per split and choice of bands, tile size and cut::

    tiles.raw       [N, H, W, C] uint8 or uint16, C order, memory-mapped
    shares.npy      [N, L] float32, only with labels: share of the tile's pixels of each class
    manifest.json   what the tiles are, their statistics, their source files and digests

Shares instead of labels, so that one packing serves every ``min_share``; an archive that gives
labels instead of masks has shares of 0 and 1.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rscl_bench import registry
from rscl_bench.data.adapter import DatasetAdapter, Scene
from rscl_bench.errors import ArchiveError, ArtefactError
from rscl_bench.spec import OnBadTile, Source

FORMAT = 1
Progress = Callable[[str, int, int], None]


def silent(_what: str, _done: int, _total: int) -> None:
    """Report no progress."""


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


def open_or_pack(
    data_root: Path,
    source: Source,
    cache: Path,
    with_labels: bool = False,
    progress: Progress = silent,
    on_bad_tile: OnBadTile = "stop",
) -> TileStore:
    """Return a split's tiles, packing them first if they are not there or their archive changed.

    Args:
        data_root: Folder that holds the archives.
        source: What to read, and how to cut it.
        cache: Folder of all tile stores.
        with_labels: Whether labels are wanted too.
        progress: Called with (what, done, total) while packing.
        on_bad_tile: Whether an image that cannot be used stops packing, or is left out, counted and
            listed.

    Returns:
        The opened store, its digests checked.

    Raises:
        ArchiveError: If the archive is missing, partial or holds an unusable file.
        ArtefactError: If a stored tile was changed since packing, or the cache is not writable.
    """
    adapter: DatasetAdapter = registry.load("datasets", source.dataset)(
        data_root, source.split, source.options
    )
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
    if _read_manifest(folder) is None:
        _pack(adapter, source, with_labels, description, inputs, folder, progress, on_bad_tile)
        for outdated in set(folder.parent.glob(f"{name}-*")) - {folder}:
            shutil.rmtree(outdated, ignore_errors=True)
    store = _open(folder, adapter)
    if store.skipped and on_bad_tile == "stop":
        raise ArchiveError(
            f"{len(store.skipped)} images of {adapter.name} {source.split} were left out when it "
            f"was packed, {store.skipped[0]} the first; mend the archive, or leave them out again "
            "with --on-bad-tile=skip."
        )
    return store


def verify(folder: Path) -> None:
    """Check every byte of a store against its manifest.

    Raises:
        ArtefactError: If a file is missing, or differs from what was packed.
    """
    manifest = _read_manifest(folder)
    if manifest is None:
        raise ArtefactError(f"{folder} has no readable manifest; delete the folder to pack again.")
    for name, digest in manifest["digests"].items():
        path = folder / name
        if not path.is_file() or _file_digest(path) != digest:
            raise ArtefactError(
                f"{path} is not what was packed (SHA-256 differs); delete the folder {folder} to "
                "pack it again."
            )


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


def _pack(
    adapter: DatasetAdapter,
    source: Source,
    with_labels: bool,
    description: dict[str, Any],
    inputs: list[list[Any]],
    folder: Path,
    progress: Progress,
    on_bad_tile: OnBadTile,
) -> None:
    bands = adapter.sensor.indices(source.bands)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        work.chmod(0o755)  # mkdtemp's 0700 would keep a shared cache from being shared
    except OSError as error:
        raise ArtefactError(
            f"The cache folder {folder.parent} is not writable ({error}); set RSCL_CACHE to a "
            "folder that is."
        ) from error
    try:
        with (work / "tiles.raw").open("wb") as raw:
            writer = _Writer(raw, source.tile_size, len(bands), adapter.sensor.dtype)
            skipped = []
            for index in range(len(adapter)):
                try:
                    scene = adapter.scene(index, with_labels)
                except ArchiveError:
                    if on_bad_tile == "stop":
                        raise
                    skipped.append(adapter.files[index].relative_to(adapter.root).as_posix())
                    progress(f"packing {adapter.name} {source.split}", index + 1, len(adapter))
                    continue
                if not with_labels:
                    scene = Scene(scene.image)  # tasks show no labels, whatever an adapter returns
                path = adapter.files[index]
                for tile, shares in _tiles(scene, source, len(adapter.classes), path):
                    writer.add(tile[:, :, bands], shares)
                progress(f"packing {adapter.name} {source.split}", index + 1, len(adapter))
        if not writer.count:
            raise ArchiveError(
                f"None of the {len(adapter)} images of {adapter.name} {source.split} in "
                f"{adapter.root} can be used; fetch them again from {adapter.source}."
            )
        if writer.shares:
            np.save(work / "shares.npy", np.stack(writer.shares).astype(np.float32))
        manifest = {
            **description,
            "count": writer.count,
            "classes": list(adapter.classes) if with_labels else [],
            "mean": writer.mean(),
            "std": writer.std(),
            "scale": adapter.sensor.scale,
            "unit": adapter.sensor.unit,
            "blank": writer.blank,
            "skipped": skipped,
            "inputs": inputs,
            "dtype": adapter.sensor.dtype,
            "digests": {p.name: _file_digest(p) for p in sorted(work.iterdir())},
        }
        (work / "manifest.json").write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for path in work.iterdir():
            _fsync(path)
        _fsync(work)
        _move_into_place(work, folder)
    except OSError as error:  # reading fails as an ArchiveError, so this is writing
        shutil.rmtree(work, ignore_errors=True)
        raise ArtefactError(
            f"The tiles of {adapter.name} {source.split} cannot be written into {folder.parent} "
            f"({error}); make room there, or set RSCL_CACHE to another folder."
        ) from error
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _move_into_place(work: Path, folder: Path) -> None:
    if folder.exists() and _read_manifest(folder) is None:
        shutil.rmtree(folder)
    try:
        work.rename(folder)
    except OSError:
        # Another process packed the same tiles in the meantime; its copy is as good as ours.
        if _read_manifest(folder) is None:
            raise
        shutil.rmtree(work)
    _fsync(folder.parent)


class _Writer:
    """Appends tiles to an open file without holding them; keeps band sums for the statistics."""

    def __init__(self, raw: BinaryIO, size: int, bands: int, dtype: str):
        self.raw, self.shape, self.dtype = raw, (size, size, bands), np.dtype(dtype)
        self.count, self.blank = 0, 0
        self.sums = np.zeros(bands)
        self.squares = np.zeros(bands)
        self.shares: list[NDArray[np.float32]] = []

    def add(self, tile: NDArray[Any], shares: NDArray[np.float32] | None) -> None:
        tile = np.ascontiguousarray(tile, dtype=self.dtype)
        self.raw.write(tile.tobytes())
        values = tile.reshape(-1, self.shape[2]).astype(np.float64)
        self.sums += values.sum(axis=0)
        self.squares += np.square(values).sum(axis=0)
        self.blank += not tile.any()
        self.count += 1
        if shares is not None:
            self.shares.append(shares)

    def _pixels(self) -> int:
        return self.count * self.shape[0] * self.shape[1]

    def mean(self) -> list[float]:
        return [float(value) for value in self.sums / self._pixels()]

    def std(self) -> list[float]:
        variance = self.squares / self._pixels() - np.square(self.sums / self._pixels())
        return [float(value) for value in np.sqrt(np.maximum(variance, 0))]


def _tiles(
    scene: Scene, source: Source, classes: int, path: Path
) -> Iterator[tuple[NDArray[Any], NDArray[np.float32] | None]]:
    """Yield the tiles of a scene ``[H, W, C]`` with the class shares ``[L]`` of each."""
    size = source.tile_size
    height, width = scene.image.shape[:2]
    labels = None if scene.labels is None else scene.labels.astype(np.float32)
    if source.cut == "whole":
        shares = _shares(scene.mask, classes) if scene.mask is not None else labels
        yield _resized(scene.image, size), shares
        return
    if height < size or width < size:
        raise ArchiveError(
            f"{path} is {width}×{height} pixels, smaller than one tile of {size}; lower tile_size "
            'or set cut = "whole".'
        )
    for top in range(0, height - size + 1, size):
        for left in range(0, width - size + 1, size):
            window = np.s_[top : top + size, left : left + size]
            shares = labels
            if scene.mask is not None:
                shares = _shares(scene.mask[window], classes)
            yield scene.image[window], shares


def _shares(mask: NDArray[np.uint8], classes: int) -> NDArray[np.float32]:
    """Return the share of all pixels, undefined ones included, that each class takes: ``[L]``."""
    counts = np.bincount(mask.ravel(), minlength=256)[:classes]
    return (counts / mask.size).astype(np.float32)


def _resized(image: NDArray[Any], size: int) -> NDArray[Any]:
    """Resize ``[H, W, C]`` with Pillow's antialiased bilinear filter, band by band."""
    if image.shape[:2] == (size, size):
        return image
    bands = []
    for band in np.moveaxis(image, 2, 0):
        # Pillow resamples 16-bit integers only as 32-bit floats.
        plane = Image.fromarray(band if band.dtype == np.uint8 else band.astype(np.float32))
        resized = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        bands.append(resized if band.dtype == np.uint8 else np.rint(resized).astype(band.dtype))
    return np.stack(bands, axis=2)


def _open(folder: Path, adapter: DatasetAdapter) -> TileStore:
    verify(folder)
    manifest = _read_manifest(folder)
    if manifest is None:
        raise ArtefactError(f"{folder} has no readable manifest; delete the folder to pack again.")
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
        digest=sha256(_canonical(identity)).hexdigest(),
        path=folder,
        skipped=tuple(manifest.get("skipped", ())),
    )


def _shape(manifest: dict[str, Any]) -> tuple[int, int, int, int]:
    size = manifest["tile_size"]
    return manifest["count"], size, size, len(manifest["bands"])


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and manifest.get("format") == FORMAT else None


def _file_digest(path: Path) -> str:
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _key(value: Any) -> str:
    return sha256(_canonical(value)).hexdigest()[:16]


def _canonical(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _fsync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
