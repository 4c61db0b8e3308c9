"""Recognises the format of a file by its first bytes, and says why a file is no image."""

import stat
from pathlib import Path

from rscl_bench.errors import ArchiveError

#: Number of first bytes that `format_of` needs.
_HEAD = 64
_SIGNATURES = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),  # BigTIFF
    (b"MM\0+", "TIFF"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    (b"%!PS", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "PostScript"),
    (b"%PDF", "PDF"),
    (b"\x89HDF", "HDF5"),
    (b"CDF", "NetCDF"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "gzip"),
    (b"\x93NUMPY", "NumPy"),
)
_MAC = "holds attributes that a Mac wrote beside the image, and no image; delete it"


class DamagedFileError(ArchiveError):
    """A file whose content is damaged; a `DatasetAdapter` adds where to fetch the file again."""


def require_regular(path: Path) -> None:
    """Refuse what is no regular file: opening a pipe or a socket would wait for ever.

    Raises:
        ArchiveError: If the path names no regular file, or cannot be reached.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise unreachable(path, error) from error
    if not stat.S_ISREG(mode):
        raise ArchiveError(f"{path} is no regular file; put the file of the archive there.")


def unreachable(path: Path, error: OSError) -> ArchiveError:
    """Return the error for a path that the operating system does not let us read."""
    reason = error.strerror or str(error)
    if isinstance(error, PermissionError):
        return ArchiveError(f"{path} cannot be read ({reason}); give yourself the permission.")
    if isinstance(error, FileNotFoundError):
        return DamagedFileError(f"{path} does not exist")
    return ArchiveError(f"{path} cannot be read ({reason}); mend the link, the disk or its mount.")


def format_of(path: Path, formats: tuple[str, ...]) -> str:
    """Return the format of an image, which must be one of ``formats``.

    Args:
        path: A file; its suffix does not matter.
        formats: Accepted formats, among ``"JPEG"``, ``"PNG"`` and ``"TIFF"``.

    Returns:
        The format.

    Raises:
        ArchiveError: If the file has another format, is no image, or cannot be read.
    """
    require_regular(path)
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise unreachable(path, error) from error
    found = _named(head)
    if found in formats:
        return found
    listed = " or ".join(formats)
    if found is not None:
        raise ArchiveError(f"{path} is a {found} file and no {listed}; convert it to {formats[0]}.")
    raise _no_image(path, head, listed)


def _named(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    return next((name for start, name in _SIGNATURES if head.startswith(start)), None)


def _no_image(path: Path, head: bytes, listed: str) -> ArchiveError:
    text = head.lstrip().lower()
    if not head:
        return DamagedFileError(f"{path} is empty")
    if head.startswith(b"version https://git-lfs"):
        return ArchiveError(f"{path} is a pointer of Git LFS; fetch the file with git lfs pull.")
    if text.startswith((b"<!doctype", b"<html", b"<?xml")):
        return DamagedFileError(f"{path} is a web page, so the download failed")
    if head.startswith(b"\0\x05\x16\x07"):
        return ArchiveError(f"{path} {_MAC}.")
    return DamagedFileError(f"{path} cannot be read, because it does not begin as a {listed} file")
