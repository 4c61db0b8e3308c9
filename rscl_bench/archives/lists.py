"""Reads the text files of archives: lists of file names, and tables."""

import codecs
from pathlib import Path

from rscl_bench.archives.formats import DamagedFileError, require_regular, unreachable
from rscl_bench.errors import ArchiveError

#: Largest size of a text file. The largest list of a known archive has 10 MB.
_MAX_BYTES = 1 << 28
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(path: Path) -> str:
    """Read a text in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        ArchiveError: If the file is missing, empty, too large or no such text.
    """
    require_regular(path)
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise ArchiveError(
                f"{path} has {size:,} bytes, too many for a text; put the archive's file there."
            )
        content = path.read_bytes()
    except OSError as error:
        raise unreachable(path, error) from error
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise ArchiveError(
            f"{path} is no text in UTF-8 (byte {error.start} is 0x{content[error.start]:02x}); "
            "save it in UTF-8."
        ) from error
    if not text.strip():
        raise DamagedFileError(f"{path} is empty")
    return text


def read_lines(path: Path) -> list[str]:
    """Read the lines of a text, without blank lines and without line ends of any system.

    Raises:
        ArchiveError: As `read_text`.
    """
    return [line for line in read_text(path).splitlines() if line.strip()]


def read_names(path: Path) -> list[str]:
    """Read a list of file names, one a line.

    Raises:
        ArchiveError: As `read_text`, or if a line is a path, or if a name stands there twice.
    """
    names: dict[str, int] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name = line.strip()
        if not name:
            continue
        if "/" in name or "\\" in name or name in (".", ".."):
            raise ArchiveError(
                f"Line {number} of {path} is '{name}', which is a path and no file name; keep the "
                "name alone."
            )
        if name in names:
            raise ArchiveError(
                f"{path} lists '{name}' twice, in lines {names[name]} and {number}; delete one."
            )
        names[name] = number
    return list(names)
