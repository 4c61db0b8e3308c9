"""The file of a submission: a ZIP archive of records, image scores, recipes and code.

The names of the files are fixed by patterns, so no name leads out of the folder. Nothing in a
bundle is ever run. The manifest ``submission.json`` has the SHA-256 of every other file. Equal
content gives equal bytes with one version of zlib.
"""

import json
import re
import shutil
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, BinaryIO, Literal

from pydantic import Field, ValidationError

import rscl_bench
from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError, shown
from rscl_bench.results.reading import read_json
from rscl_bench.results.text import Line
from rscl_bench.spec import Spec, first_problem

MANIFEST = "submission.json"
RECORD, SCORES, ENCODER, RECIPE = (
    "record.json",
    "record.safetensors",
    "encoder.safetensors",
    "recipe.toml",
)
_MEGABYTE = 2**20
#: Most bytes of a file, by the pattern of its name.
_LARGEST: Mapping[re.Pattern[str], int] = {
    re.compile(rf"{MANIFEST}"): _MEGABYTE,
    re.compile(rf"runs/[0-9a-f]{{16}}/{RECORD}"): 16 * _MEGABYTE,
    re.compile(rf"runs/[0-9a-f]{{16}}/{RECIPE}"): _MEGABYTE,
    re.compile(rf"runs/[0-9a-f]{{16}}/{SCORES}"): 1024 * _MEGABYTE,
    re.compile(rf"runs/[0-9a-f]{{16}}/{ENCODER}"): 2048 * _MEGABYTE,
    re.compile(r"components/[0-9a-f]{12}/[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}\.py"): _MEGABYTE,
}
#: Times its packed size that a file may unpack to. Scores of ML-kNN shrink to a thirtieth.
_RATIO = 200
_SMALL = 64 * 1024
_MOST_FILES = 1000
_MOST_BYTES = 4 * 1024 * _MEGABYTE - 1
_EPOCH = (1980, 1, 1, 0, 0, 0)
_END, _END_64 = struct.Struct("<4s4H2LH"), 20
_MEND = "ask its sender to pack it again with `rscl-bench submit pack`"


class Manifest(Spec):
    """The manifest of a bundle.

    Attributes:
        format: Version of the layout.
        tool: Program that packed the bundle.
        files: SHA-256 of every other file, by its name in the bundle.
    """

    format: Literal[1] = 1
    tool: Line
    files: dict[str, Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]]


@dataclass(frozen=True)
class Bundle:
    """An unpacked bundle.

    Attributes:
        folder: Folder of its files.
        names: Names of its files, without the manifest.
    """

    folder: Path
    names: tuple[str, ...]

    @property
    def records(self) -> list[Path]:
        """Paths of the records, sorted."""
        return sorted(self.folder / name for name in self.names if name.endswith(f"/{RECORD}"))

    @property
    def components(self) -> dict[str, Path]:
        """Files of code by the digits of their digest."""
        found = [name.split("/") for name in self.names if name.startswith("components/")]
        return {digits: self.folder / "components" / digits / file for _, digits, file in found}

    def beside(self, record: Path, name: str) -> Path | None:
        """Return a file beside a record; None if the bundle does not have it."""
        path = record.with_name(name)
        return path if str(path.relative_to(self.folder)) in self.names else None


def bundle_bytes(files: Mapping[str, bytes]) -> Iterator[tuple[zipfile.ZipInfo, bytes]]:
    """Yield the entries of a bundle in their order, the manifest first.

    Args:
        files: Contents by name.
    """
    digests = {name: sha256(files[name]).hexdigest() for name in sorted(files)}
    manifest = Manifest(tool=f"rscl-bench {rscl_bench.__version__}", files=digests)
    text = json.dumps(manifest.model_dump(mode="json"), indent=2) + "\n"
    for name, content in [(MANIFEST, text.encode()), *((n, files[n]) for n in digests)]:
        entry = zipfile.ZipInfo(name, _EPOCH)
        entry.create_system, entry.external_attr = 3, 0o644 << 16
        # The weights of an encoder do not shrink.
        entry.compress_type = zipfile.ZIP_STORED if name.endswith(ENCODER) else zipfile.ZIP_DEFLATED
        yield entry, content


def write_bundle(files: Mapping[str, bytes], out: Path) -> None:
    """Write a bundle, whole or not at all.

    Args:
        files: Contents by name.
        out: The file.

    Raises:
        ArtefactError: If a file is too large for a bundle, or the bundle cannot be written.
    """
    for name, content in files.items():
        if len(content) > _largest(name):
            raise ArtefactError(
                f"{name} has {len(content)} bytes, and a bundle takes {_largest(name)}; pack fewer "
                "things."
            )
    if len(files) >= _MOST_FILES or sum(map(len, files.values())) > _MOST_BYTES:
        raise ArtefactError(
            f"A bundle holds at most {_MOST_FILES - 1} files and 4 GiB; pack fewer runs into one."
        )
    with TemporaryDirectory() as work:
        path = Path(work) / "bundle.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for entry, content in bundle_bytes(files):
                archive.writestr(entry, content, compresslevel=9)
        write_atomic(out, path.read_bytes())


@contextmanager
def opened_bundle(path: Path) -> Iterator[Bundle]:
    """Unpack a bundle into a temporary folder, and check its names, sizes and digests.

    Raises:
        ArtefactError: If the file is no bundle: it is damaged, holds a file with another name, a
            name twice, a file that is too large, or one whose digest is not in the manifest.
    """
    with TemporaryDirectory() as work:
        try:
            yield _unpacked(path, Path(work))
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            struct.error,
            NotImplementedError,
        ) as error:
            raise ArtefactError(f"{path} is damaged ({shown(str(error))}); {_MEND}.") from error


def _unpacked(path: Path, folder: Path) -> Bundle:
    try:
        with path.open("rb") as file:
            _check_end(file, path)
            with zipfile.ZipFile(file) as archive:
                entries = archive.infolist()
                for entry in entries:
                    _check_entry(entry, path)
                names = [entry.filename for entry in entries]
                if len(set(names)) < len(names):
                    raise ArtefactError(f"{path} holds a file twice; {_MEND}.")
                digests = {entry.filename: _extract(archive, entry, folder) for entry in entries}
    except OSError as error:
        raise ArtefactError(f"{path} cannot be read ({error.strerror or error}).") from error
    _check_manifest(folder / MANIFEST, digests, path)
    return Bundle(folder, tuple(name for name in names if name != MANIFEST))


def _check_end(file: BinaryIO, path: Path) -> None:
    """Refuse a list of files that is too long, before it is read.

    A bundle ends with the record of its end, without a comment and without the 64-bit form.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - _END.size - _END_64))
    tail = file.read(_END.size + _END_64)
    if len(tail) < _END.size or not tail[-_END.size :].startswith(b"PK\5\6"):
        raise ArtefactError(f"{path} is no bundle of a submission; {_MEND}.")
    _, _, _, _, count, length, _, _ = _END.unpack(tail[-_END.size :])
    if count > _MOST_FILES or length > 2**20 or tail.startswith(b"PK\6\7") or size > 2**32:
        raise ArtefactError(f"{path} lists more than {_MOST_FILES} files or is too large; {_MEND}.")


def _check_entry(entry: zipfile.ZipInfo, path: Path) -> None:
    name = shown(entry.filename, 120)
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ArtefactError(f"{path}: '{name}' is packed in an unknown way; {_MEND}.")
    largest = _largest(entry.filename)
    if not largest:
        raise ArtefactError(f"{path} holds '{name}', which is no file of a submission; {_MEND}.")
    if entry.file_size > min(largest, _RATIO * entry.compress_size + _SMALL):
        raise ArtefactError(
            f"{path}: '{name}' unpacks from {entry.compress_size} to {entry.file_size} bytes, more "
            f"than such a file may have; {_MEND}."
        )


def _largest(name: str) -> int:
    """Return the most bytes of a file of a bundle; 0 if no bundle has such a file."""
    return next((most for pattern, most in _LARGEST.items() if pattern.fullmatch(name)), 0)


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, folder: Path) -> str:
    """Write one file of a bundle, and return its SHA-256; its name was checked before."""
    target = folder / entry.filename
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(entry) as packed, target.open("wb") as file:
        shutil.copyfileobj(packed, file, _MEGABYTE)  # never more than the declared size
    digest = sha256()
    with target.open("rb") as file:
        while block := file.read(_MEGABYTE):
            digest.update(block)
    return digest.hexdigest()


def _check_manifest(file: Path, digests: Mapping[str, str], path: Path) -> None:
    if not file.is_file():
        raise ArtefactError(f"{path} is no bundle of a submission: it has no {MANIFEST}; {_MEND}.")
    try:
        manifest = Manifest.model_validate_json(read_json(file, _MEND)[0], strict=True)
    except ValidationError as error:
        problem = shown(first_problem(error))
        raise ArtefactError(f"{path}, {MANIFEST}: {problem}; {_MEND}.") from error
    present = {name: digest for name, digest in digests.items() if name != MANIFEST}
    for name in sorted({*present, *manifest.files}):
        if present.get(name) != manifest.files.get(name):
            raise ArtefactError(
                f"{path}: '{shown(name, 120)}' is not the file of which {MANIFEST} has the digest; "
                f"{_MEND}."
            )
