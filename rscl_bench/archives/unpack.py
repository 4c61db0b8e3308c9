"""Unpacks a downloaded archive into a new folder.

An archive comes from strangers, so nothing that it declares is trusted: not the length of a name, a
size or a number of files. Headers are bounded before they are read, and the decompressed stream is
counted. The archive is read twice: first to check it, then to write its files.
"""

import bz2
import errno
import gzip
import lzma
import os
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from rscl_bench.errors import ArchiveError, ArtefactError, shown
from rscl_bench.scratch import scratch_folder

#: Archives of images unpack to a few times their size, decompression bombs to a thousand times.
MAX_RATIO = 20
#: Bytes that an archive of any size may unpack to: masks without compression shrink a hundredfold.
_ALLOWANCE = 4 * 2**30
#: Files and folders that an archive may hold: so many, and more for each KiB of the archive.
_MEMBERS = 10_000
#: Bytes of a header of a TAR file, such as one with a long name.
_MAX_HEADER = 64 * 2**10
_BLOCK = 2**20
_HEADERS = {
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
}
#: Characters that change the direction of the text around them.
_DIRECTIONS = {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
#: The empty file in which macOS keeps the icon of a folder.
_ICON = "Icon\r"
_DECOMPRESSORS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
    b"]\x00\x00": lzma.open,
}


@dataclass(frozen=True)
class _Member:
    """One file or folder of an archive.

    Attributes:
        name: Its path in the archive, as stored.
        size: Number of bytes that the archive declares.
        is_folder: Whether it is a folder.
        open: Opens the content of a file.
    """

    name: str
    size: int
    is_folder: bool
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, max_ratio: int = MAX_RATIO) -> int:
    """Unpack a ZIP or TAR file into a new folder, completely or not at all.

    Args:
        archive: A ZIP file, or a TAR file, also compressed by gzip, bzip2 or xz.
        folder: Folder to unpack into, absent or empty.
        max_ratio: Times its own size, plus 4 GiB, that the archive may unpack to.

    Returns:
        The number of files.

    Raises:
        ArchiveError: If the archive is damaged, unpacks to more than allowed, or holds what no
            archive of images does: a link, a device, a path outside of the folder, two files of one
            name, or a name with control characters.
        ArtefactError: If the folder is not empty or cannot be written.
    """
    _check_archive(archive)
    target = Path(os.path.realpath(folder))
    _check_target(target, folder)
    reader = _reader(archive)
    with _writing(folder):
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target.parent, "unpacking") as work:
            limits = _Limits(archive, max_ratio)
            for member in reader(archive, limits):
                limits.count(member)
                _path_of(member, archive)
            count = 0
            content = work / "content"
            content.mkdir()
            for member in reader(archive, limits):
                count += _write(member, content, archive)
            content.replace(target)
    return count


def unpack_beside(archive: Path, folder: Path) -> None:
    """Unpack an archive into a folder that may hold other files; equal names are replaced.

    The files are moved into place when all are unpacked.

    Raises:
        ArchiveError: As `unpack`.
        ArtefactError: If the folder cannot be written, or has too little room.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with scratch_folder(folder, "unpacking-beside") as work:
            unpack(archive, work / "content")
            _merge(work / "content", folder)
    except (ArtefactError, OSError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        raise ArtefactError(
            f"{archive} cannot be unpacked into {folder} "
            f"({getattr(cause, 'strerror', None) or error}); make room, or give another folder "
            "with --data-root."
        ) from error


def _merge(content: Path, folder: Path) -> None:
    for entry in sorted(content.iterdir()):
        target = folder / entry.name
        if entry.is_dir() and target.is_dir():
            _merge(entry, target)
        else:
            entry.replace(target)


def _check_archive(archive: Path) -> None:
    try:
        mode = archive.stat().st_mode
        if not stat.S_ISREG(mode):  # opening a pipe would wait for ever
            kind = "a folder" if stat.S_ISDIR(mode) else "no regular file"
            raise ArchiveError(f"{archive} is {kind}; give the downloaded ZIP or TAR file.")
        archive.open("rb").close()
    except OSError as error:
        raise ArchiveError(
            f"{archive} cannot be read ({error.strerror or error}); check its path and permissions."
        ) from error


def _check_target(target: Path, folder: Path) -> None:
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ArtefactError(
                f"{folder} exists and is not empty; give another folder with --into."
            )
        if target.is_mount() or (target.exists() and target.samefile(Path.cwd())):
            raise ArtefactError(
                f"{folder} is the current folder or a mount, which cannot be replaced; give a new "
                "folder below it with --into."
            )
    except OSError as error:
        raise _unwritable(folder, error) from error


# Limits


class _Limits:
    """Counts what an archive would unpack to, and refuses too much."""

    def __init__(self, archive: Path, max_ratio: int):
        size = archive.stat().st_size
        self.archive, self.max_ratio = archive, max_ratio
        self.most_bytes = max_ratio * size + _ALLOWANCE
        self.most_members = _MEMBERS + max_ratio * size // 1024
        self.bytes = self.members = 0

    def count(self, member: _Member) -> None:
        """Count a member by its declared size; neither module extracts more than that."""
        self.bytes += member.size
        self.members += 1
        self.check(self.bytes)
        if self.members > self.most_members:
            raise self._too_much(f"more than {self.most_members} files")

    def check(self, count: int) -> None:
        """Refuse a number of unpacked bytes that is too large."""
        if count > self.most_bytes:
            raise self._too_much(f"{count} bytes or more")

    def _too_much(self, what: str) -> ArchiveError:
        return ArchiveError(
            f"{self.archive} would unpack to {what}. The limit is {self.max_ratio} times its size, "
            "and 4 GiB more; nothing was unpacked. If its publisher is to be trusted, raise the "
            "limit with --max-ratio of `rscl-bench data unpack`."
        )


class _CountedStream:
    """A decompressed stream that ends at the limit."""

    def __init__(self, stream: IO[bytes], limits: _Limits):
        self.stream, self.limits, self.count = stream, limits, 0

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.count += len(data)
        self.limits.check(self.count)
        return data


class _DamagedTarError(Exception):
    """A header of a TAR file is damaged; `tarfile` would take it for the end of the file."""


class _BoundedHeader(tarfile.TarInfo):
    """A header of a TAR file whose continuation is bounded before it is read."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise _DamagedTarError(str(error)) from error

    def _proc_member(self, tar: tarfile.TarFile) -> Any:
        if self.type in _HEADERS and self.size > _MAX_HEADER:
            raise _DamagedTarError(f"a header of {self.size} bytes")
        if self.type == tarfile.XGLTYPE:
            # Global headers add up in memory.
            tar.global_bytes = getattr(tar, "global_bytes", 0) + self.size  # type: ignore[attr-defined]
            if tar.global_bytes > _MAX_HEADER:  # type: ignore[attr-defined]
                raise _DamagedTarError("global headers without end")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise _DamagedTarError("a sparse file")
        return super()._proc_member(tar)  # type: ignore[misc]

    def _refuse_sparse(self, *_: Any) -> None:
        raise _DamagedTarError("a sparse file")

    # Maps of sparse files have no bound.
    _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse_sparse


# Reading

_Reader = Callable[[Path, _Limits], Iterator[_Member]]


def _reader(archive: Path) -> _Reader:
    """Return the reader of an archive's format, which its first bytes tell."""
    with archive.open("rb") as file:
        start = file.read(tarfile.BLOCKSIZE)
    if start.startswith(b"PK"):
        return _zip_members
    if start.startswith(tuple(_DECOMPRESSORS)) or _is_tar_header(start):
        return _tar_members
    # The file may be a program that unpacks itself, followed by a ZIP file.
    if zipfile.is_zipfile(archive):
        return _zip_members
    raise ArchiveError(
        f"{archive} is no ZIP or TAR file, or is damaged; fetch it again, and unpack a file of "
        "another format with the program of that format."
    )


def _is_tar_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, tarfile.ENCODING, "surrogateescape")
    except tarfile.HeaderError:
        return False
    return True


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn whatever a library raises on damaged content into one sentence."""
    try:
        yield
    except ArchiveError:
        raise
    except NotImplementedError as error:
        raise ArchiveError(
            f"{archive} has a compression that Python does not read ({shown(str(error))}); unpack "
            "it with another program."
        ) from error
    # The modules of Python raise a dozen types of errors on damaged archives, MemoryError included.
    except Exception as error:
        raise ArchiveError(
            f"{archive} is damaged or no ZIP or TAR file of plain files "
            f"({type(error).__name__}: {shown(str(error))}); fetch it again."
        ) from error


def _zip_members(archive: Path, _: _Limits) -> Iterator[_Member]:
    with _reading(archive):
        zipped = zipfile.ZipFile(archive)
    with zipped:
        for info in zipped.infolist():
            if info.flag_bits & 1:
                raise ArchiveError(
                    f"{archive} is encrypted; unpack it with a program that asks for the password."
                )
            opener = _Opener(zipped.open, info)
            yield _Member(info.filename, info.file_size, info.is_dir(), opener)


def _tar_members(archive: Path, limits: _Limits) -> Iterator[_Member]:
    with _reading(archive), _decompressed(archive) as stream:
        counted = _CountedStream(stream, limits)
        # A stream is read once, from start to end.
        with tarfile.open(fileobj=counted, mode="r|", tarinfo=_BoundedHeader) as tar:  # type: ignore[call-overload]
            while (info := tar.next()) is not None:
                tar.members = []  # tarfile remembers every member
                if not (info.isdir() or info.isreg()):
                    raise ArchiveError(
                        f"{archive} holds the link or device '{shown(info.name)}'; only plain "
                        "files and folders are unpacked."
                    )
                yield _Member(info.name, info.size, info.isdir(), _Opener(tar.extractfile, info))
        while counted.read(_BLOCK):  # gzip compares its checksum at the end
            pass


@dataclass(frozen=True)
class _Opener:
    function: Callable[[Any], Any]
    info: Any

    def __call__(self) -> IO[bytes]:
        opened: IO[bytes] = self.function(self.info)
        return opened


def _decompressed(archive: Path) -> IO[bytes]:
    with archive.open("rb") as file:
        start = file.read(8)
    for magic, opener in _DECOMPRESSORS.items():
        if start.startswith(magic):
            stream: IO[bytes] = opener(archive)
            return stream
    return archive.open("rb")


# Writing


def _path_of(member: _Member, archive: Path) -> Path | None:
    """Return where a member is written below the folder, or None if it is left out.

    Raises:
        ArchiveError: If the name is no name of a file.
    """
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    if parts and parts[-1] == _ICON:
        return None
    if ".." in parts:
        raise _bad_name(archive, member, "leads outside of the folder")
    if any(_is_control(character) for character in member.name):
        raise _bad_name(archive, member, "has control characters")
    if any(len(os.fsencode(part)) > 255 for part in parts):
        raise _bad_name(archive, member, "is longer than a file system takes")
    if not parts and not member.is_folder:
        raise _bad_name(archive, member, "is empty")
    return Path(*parts)


def _is_control(character: str) -> bool:
    code = ord(character)
    return code < 0x20 or 0x7F <= code < 0xA0 or character in _DIRECTIONS


def _bad_name(archive: Path, member: _Member, what: str) -> ArchiveError:
    return ArchiveError(
        f"The name '{shown(member.name)}' in {archive} {what}; fetch the archive from its "
        "publisher, or unpack it with another program."
    )


def _write(member: _Member, content: Path, archive: Path) -> int:
    """Write a member below a folder; return the number of files written."""
    relative = _path_of(member, archive)
    if relative is None:
        return 0
    path = content / relative
    try:
        if member.is_folder:
            path.mkdir(parents=True, exist_ok=True)
            return 0
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except (FileExistsError, NotADirectoryError) as error:
        raise _bad_name(
            archive, member, "stands there twice, or for a file and for a folder"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL):
            raise
        raise _bad_name(archive, member, "is not taken by the file system") from error
    with file:
        for block in _blocks(member, archive):
            file.write(block)
    return 1


def _blocks(member: _Member, archive: Path) -> Iterator[bytes]:
    with _reading(archive):
        opened = member.open()
    with opened:
        while True:
            with _reading(archive):
                block = opened.read(_BLOCK)
            if not block:
                return
            yield block


def _unwritable(folder: Path, error: OSError) -> ArtefactError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return ArtefactError(
        f"{folder} cannot be written ({error.strerror or error}); "
        f"{'make room there, or give' if full else 'give'} another folder with --into."
    )


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _unwritable(folder, error) from error
