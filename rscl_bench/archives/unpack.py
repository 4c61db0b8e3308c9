"""Unpacks a downloaded archive, and lets it write nothing but files below one folder."""

import gzip
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from rscl_bench.errors import ArchiveError, ArtefactError

_RATIO = 20  # archives of images are a few times as large unpacked; a bomb is a thousand
_SPARE = 64 * 2**20
_BLOCK = 2**20
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    NotImplementedError,  # a compression that is not known
    RuntimeError,  # an encrypted file
)


class _Member(NamedTuple):
    """A file of an archive, or a folder if there is nothing to read."""

    name: str
    content: IO[bytes] | None


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a ZIP or TAR file into a new folder, whole or not at all.

    Args:
        archive: The file, compressed in any way that Python's `tarfile` knows, or a ZIP.
        folder: Where to; it must not exist, or be empty.

    Returns:
        The number of files.

    Raises:
        ArchiveError: If the archive is damaged, holds anything but files and folders below it, or
            grows beyond twenty times its size.
        ArtefactError: If the folder is in use or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtefactError(f"{folder} exists and is not empty; give another folder with --into.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    except OSError as error:
        raise ArtefactError(f"{folder.parent} is not writable ({error}); give another.") from error
    try:
        count = _unpack_into(archive, work)
        work.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        work.rename(folder)
    except OSError as error:  # reading fails as an ArchiveError, so this is writing
        raise ArtefactError(f"{folder} cannot be written ({error}); make room there.") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return count


def _unpack_into(archive: Path, work: Path) -> int:
    left = _RATIO * archive.stat().st_size + _SPARE
    count = 0
    members = _members(archive)
    while member := _next(archive, members):
        name, content = member
        target = work / _checked(archive, name)
        if content is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            # What a header says of a size may be a lie: what arrives is counted.
            while block := _read(archive, content, min(_BLOCK, left + 1)):
                left -= len(block)
                if left < 0:
                    raise ArchiveError(
                        f"{archive} grows beyond {_RATIO} times its size at '{name}', as no "
                        "archive of images does; it was not unpacked."
                    )
                file.write(block)
        count += 1
    return count


def _next(archive: Path, members: Iterator[_Member]) -> _Member | None:
    try:
        return next(members, None)
    except _DAMAGED as error:
        raise _damaged(archive, error) from error


def _read(archive: Path, content: IO[bytes], size: int) -> bytes:
    try:
        return content.read(size)
    except _DAMAGED as error:
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> ArchiveError:
    return ArchiveError(f"{archive} is damaged ({error}); fetch it again.")


def _members(archive: Path) -> Iterator[_Member]:
    with ExitStack() as stack:
        if zipfile.is_zipfile(archive):
            zipped = stack.enter_context(zipfile.ZipFile(archive))
            for info in zipped.infolist():
                mode = info.external_attr >> 16
                if mode and not stat.S_ISREG(mode) and not stat.S_ISDIR(mode) and stat.S_IFMT(mode):
                    raise _refused(archive, info.filename, "is neither file nor folder")
                if info.is_dir():
                    yield _Member(info.filename, None)
                    continue
                with zipped.open(info) as content:
                    yield _Member(info.filename, content)
        elif tarfile.is_tarfile(archive):
            tar = stack.enter_context(tarfile.open(archive))
            for member in tar:
                if not member.isfile() and not member.isdir():
                    raise _refused(archive, member.name, "is neither file nor folder")
                yield _Member(member.name, tar.extractfile(member) if member.isfile() else None)
        else:
            raise ArchiveError(f"{archive} is neither a ZIP nor a TAR file; fetch it again.")


def _checked(archive: Path, name: str) -> PurePosixPath:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        raise _refused(archive, name, "would be written outside of the folder")
    return path


def _refused(archive: Path, name: str, why: str) -> ArchiveError:
    return ArchiveError(f"{archive} holds '{name}', which {why}; it was not unpacked.")
