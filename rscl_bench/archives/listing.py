"""Lists the files of a folder by name, and finds the files that an archive must hold."""

from collections.abc import Sequence
from pathlib import Path

from rscl_bench.archives.formats import unreachable
from rscl_bench.errors import ArchiveError

#: Suffixes that stand for one format.
_ALIASES = {".jpeg": ".jpg", ".tiff": ".tif"}


def names_in(folder: Path) -> list[str]:
    """Return the names in a folder, sorted; empty if there is no such folder.

    Hidden names (``.DS_Store``, and the ``._x.jpg`` that a Mac writes beside ``x.jpg``) are left
    out.

    Raises:
        ArchiveError: If the folder cannot be listed.
    """
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise unreachable(folder, error) from error


def pictures_in(folder: Path, suffix: str) -> list[str]:
    """Return the names in a folder that have a suffix in any spelling, sorted.

    Args:
        folder: The folder.
        suffix: The suffix, such as ``".jpg"``; ``.JPG`` and ``.jpeg`` are taken too.

    Raises:
        ArchiveError: If the folder cannot be listed, or holds one name with two spellings.
    """
    found: dict[str, str] = {}
    for name in names_in(folder):
        plain = plain_name(name)
        if Path(plain).suffix != suffix:
            continue
        if plain in found:
            raise ArchiveError(f"{folder} holds {found[plain]} and {name}; delete one of them.")
        found[plain] = name
    return list(found.values())


def plain_name(name: str) -> str:
    """Return a file's name with its suffix as archives spell it: ``x.JPEG`` gives ``x.jpg``."""
    stem, _, suffix = name.rpartition(".")
    if not stem:
        return name
    suffix = f".{suffix.lower()}"
    return stem + _ALIASES.get(suffix, suffix)


def demanded(folder: Path, names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Find the pictures that a folder must hold, whatever the spelling of their suffix.

    Args:
        folder: The folder.
        names: Names of the pictures, all with the suffix of the first.

    Returns:
        The path of each name, in the order of ``names``, whether the file exists or not; and the
        names of further pictures in the folder, such as copies.

    Raises:
        ArchiveError: If the folder cannot be listed, or holds one name with two spellings.
    """
    if not names:
        return [], []
    found = {plain_name(n): n for n in pictures_in(folder, Path(names[0]).suffix)}
    paths = [folder / found.pop(name, name) for name in names]
    return paths, sorted(found.values())
