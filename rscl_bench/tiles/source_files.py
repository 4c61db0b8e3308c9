"""The source files of a split: how they are listed, hashed and described in a run's identity.

Pixels depend on the version of the decoder: two versions of GDAL decode one JPEG to different
values. The identity of a run therefore holds a digest of the bytes of the source files and of how
they are cut. The digest of the packed pixels stands beside the identity.
"""

import hashlib
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rscl_bench import registry
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArchiveError
from rscl_bench.progress import Progress, silent
from rscl_bench.spec import Source

#: Digest of a file that cannot be read; its image is then skipped.
UNREADABLE = bytes(32)


class SourceFiles:
    """The files that the tiles of one split are made from.

    Args:
        adapter: The opened split.
        with_labels: Whether the files that labels alone depend on are among them.

    Attributes:
        paths: The files, each once; first the images in the order of the adapter.
    """

    def __init__(self, adapter: DatasetAdapter, with_labels: bool):
        self.adapter = adapter
        left_out = set() if with_labels else set(adapter.label_files())
        others = [path for path in adapter.inputs() if path not in left_out]
        self.paths = list(dict.fromkeys([*adapter.files, *others]))
        # The first scene of each image file; a file that holds several scenes is hashed with it.
        self._first: dict[Path, int] = {}
        for index, path in enumerate(adapter.files):
            self._first.setdefault(path, index)
        self._others = [path for path in self.paths if path not in self._first]

    def of_scene(self, index: int) -> list[Path]:
        """Return the files that are hashed with a scene: its image and a share of the others.

        If there is one other file for each image, such as a mask, it is that of the same image, so
        that a file is hashed when it is read.
        """
        scenes, others = len(self.adapter.files), len(self._others)
        share = self._others[index * others // scenes : (index + 1) * others // scenes]
        image = self.adapter.files[index]
        return [image, *share] if self._first[image] == index else share

    def names(self, paths: Sequence[Path]) -> list[str]:
        """Return the canonical path of each file below the archive's folder."""
        return [self.adapter.canonical_path(path) for path in paths]

    def listing(self) -> list[list[Any]]:
        """Return name, size and modification time of each file, which show whether one changed.

        Raises:
            ArchiveError: If a file does not exist, cannot be reached or is no regular file.
        """
        named = zip(self.names(self.paths), map(self._status, self.paths), strict=True)
        return [[name, status.st_size, status.st_mtime_ns] for name, status in named]

    def _status(self, path: Path) -> Any:
        try:
            status = path.stat()
        except FileNotFoundError as error:
            raise self.adapter.missing(f"{path} does not exist") from error
        except OSError as error:
            raise ArchiveError(
                f"{path} cannot be reached ({error.strerror or error}); mend the link or the "
                "permissions."
            ) from error
        if not stat.S_ISREG(status.st_mode):
            raise ArchiveError(f"{path} is no regular file; put the file of the archive there.")
        return status

    def digests(self, progress: Progress = silent) -> dict[str, str]:
        """Read all files, and return the SHA-256 of each by name; see `hexadecimal`.

        Args:
            progress: Called after each file.
        """
        digests = []
        for path in self.paths:
            digests.append(source_file_digest(path).hex())
            what = f"comparing {self.adapter.name} {self.adapter.split} with packed tiles"
            progress(what, len(digests), len(self.paths))
        return dict(zip(self.names(self.paths), digests, strict=True))

    def named(self, digests: bytes) -> dict[str, str]:
        """Return the SHA-256 of each file by name, given the digests of all scenes in order."""
        paths = [path for index in range(len(self.adapter.files)) for path in self.of_scene(index)]
        size = len(UNREADABLE)
        values = [digests[start : start + size].hex() for start in range(0, len(digests), size)]
        return dict(sorted(zip(self.names(paths), values, strict=True)))


def source_file_digest(path: Path) -> bytes:
    """Return the SHA-256 of a file's bytes; `UNREADABLE` if the file cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError:
        return UNREADABLE


def description(adapter: DatasetAdapter, source: Source, with_labels: bool) -> dict[str, Any]:
    """Return all that the values of tiles depend on besides the bytes of the source files.

    Args:
        adapter: The opened split.
        source: How the split is cut.
        with_labels: Whether the tiles have class shares.
    """
    # The name of a sensor and its ground sample distance change no value of a tile.
    sensor = {k: v for k, v in asdict(adapter.sensor).items() if k not in ("name", "gsd_m")}
    # Fields that older sensors lack are left out at their defaults, so that digests stay.
    if sensor["amplitude"] == "linear":
        del sensor["amplitude"]
    for band in sensor["bands"]:
        if band["width_nm"] is None:
            del band["width_nm"]
        if band["kind"] == "optical":
            del band["kind"]
    code = registry.code_digest(type(adapter))
    if code is None:
        reader = {"name": source.dataset, "version": adapter.version}
    else:
        reader = {"class": type(adapter).__qualname__, "version": adapter.version, "code": code}
    return {
        "dataset": adapter.name,
        "reader": {**reader, "nodata": adapter.nodata},
        "sensor": sensor,
        "split": source.split,
        "options": source.options,
        "bands": list(source.bands),
        "tile_size": source.tile_size,
        "cut": source.cut,
        "labels": with_labels,
        "classes": list(adapter.classes) if with_labels else [],
    }


def source_digest(
    described: Mapping[str, Any], digests: Mapping[str, str], skipped: Sequence[str]
) -> str:
    """Return the digest that stands for a split's tiles in the identity of a run.

    Args:
        described: The `description` of the tiles.
        digests: SHA-256 of each source file by its name.
        skipped: Unusable images that were left out, by path in the archive.

    Returns:
        64 hexadecimal digits. They do not depend on where the archive lies, nor on the decoder.
    """
    value = {**described, "files": sorted(digests.items()), "skipped": list(skipped)}
    return hashlib.sha256(canonical_json(value)).hexdigest()
