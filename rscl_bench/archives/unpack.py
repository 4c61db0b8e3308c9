"""Unpacks a downloaded archive into a new folder."""

import errno
import lzma
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

from rscl_bench.errors import ArchiveError, ArtefactError

#: Archives of images unpack to a few times their size, decompression bombs to a thousand times.
_MAX_RATIO = 20
#: Bytes that an archive of any size may unpack to.
_ALLOWANCE = 64 * 2**20
# NotImplementedError is an unknown compression; RuntimeError is an encrypted file.
_READ_ERRORS = (zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError, ValueError)
_WRITE_ERRORS = (errno.ENOSPC, errno.EDQUOT)


def unpack(archive: Path, folder: Path) -> int:
    """Unpack a ZIP or TAR file into a new folder, completely or not at all.

    Args:
        archive: A ZIP file, or a TAR file with any compression that `tarfile` reads.
        folder: Folder to unpack into, absent or empty.

    Returns:
        The number of files.

    Raises:
        ArchiveError: If the archive is damaged, unpacks to more than twenty times its size, or is
            a TAR file with a link, a device or a path outside of the folder.
        ArtefactError: If the folder is not empty or cannot be written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtefactError(f"{folder} exists and is not empty; give another folder with --into.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as work:
            content = Path(work) / "content"
            _extract(archive, content)
            count = sum(path.is_file() for path in content.rglob("*"))
            content.replace(folder)
    except OSError as error:
        raise ArtefactError(f"{folder} cannot be written ({error}); make room there.") from error
    return count


def _extract(archive: Path, folder: Path) -> None:
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as zipped:
                _check_size(archive, sum(info.file_size for info in zipped.infolist()))
                zipped.extractall(folder)  # strips roots and `..` from names, makes no links
        else:
            with tarfile.open(archive) as tar:
                _check_size(archive, sum(member.size for member in tar))
                tar.extractall(folder, filter=_without_links)
    except (zipfile.BadZipFile, tarfile.TarError, OSError, *_READ_ERRORS) as error:
        if isinstance(error, OSError) and error.errno in _WRITE_ERRORS:
            raise
        raise ArchiveError(
            f"{archive} is damaged or no ZIP or TAR file of plain files ({error}); fetch it again."
        ) from error


def _check_size(archive: Path, unpacked: int) -> None:
    # Neither module extracts more bytes of a member than its header declares.
    if unpacked > _MAX_RATIO * archive.stat().st_size + _ALLOWANCE:
        raise ArchiveError(
            f"{archive} would unpack to {unpacked} bytes, more than {_MAX_RATIO} times its size, "
            "as no archive of images does; it was not unpacked."
        )


def _without_links(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    if member.islnk() or member.issym():
        raise tarfile.LinkOutsideDestinationError(member, member.linkname)
    return tarfile.data_filter(member, folder)
