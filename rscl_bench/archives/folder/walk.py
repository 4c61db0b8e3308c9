"""Finds the images below a folder by a pattern, in an order that no file system decides."""

import os
import unicodedata
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path, PurePosixPath

from rscl_bench.archives.formats import unreachable
from rscl_bench.archives.listing import plain_name

_ANY = "**"
#: Suffixes, as `plain_name` spells them, that a pattern without a suffix takes.
_IMAGES = (".jpg", ".png", ".tif", ".npy")


def in_one_form(text: str) -> str:
    """Return a name in Unicode's composed form, in which names of all systems are compared."""
    return unicodedata.normalize("NFC", text)


def images_below(root: Path, pattern: str) -> dict[str, Path]:
    """Return the images below a folder by their path in it, sorted by this path.

    Hidden files and folders are left out. Links are followed, but never into a folder that holds
    the link.

    Args:
        root: The folder.
        pattern: Names joined by ``/``, with ``*``, ``?`` and ``[...]``; ``**`` stands for any
            folders. The suffix of a file is compared in any spelling (``.JPEG`` is ``.jpg``).

    Returns:
        Path of each image by its path below ``root``, with ``/`` and in composed Unicode.

    Raises:
        ArchiveError: If a folder cannot be listed.
    """
    parts = [in_one_form(part) for part in PurePosixPath(pattern).parts]
    if parts[-1] == _ANY:
        parts.append("*")
    found = dict(_walk(root, "", parts, _closure({0}, parts), ()))
    return dict(sorted(found.items()))


def _walk(
    folder: Path,
    below: str,
    pattern: list[str],
    states: set[int],
    outer: tuple[os.stat_result, ...],
) -> Iterator[tuple[str, Path]]:
    """Yield the matching files; ``states`` are the positions in the pattern before this folder."""
    try:
        status = folder.stat()
        if any(os.path.samestat(status, one) for one in outer):
            return  # a link into a folder that holds the link
        with os.scandir(folder) as listed:
            entries = [(entry.name, entry.is_dir()) for entry in listed if entry.name[0] != "."]
    except OSError as error:
        raise unreachable(folder, error) from error
    for name, is_folder in entries:
        inside = f"{below}{in_one_form(name)}"
        after = _step(states, in_one_form(name), pattern, is_folder)
        if is_folder and after:
            yield from _walk(folder / name, f"{inside}/", pattern, after, (*outer, status))
        elif not is_folder and len(pattern) in after:
            yield inside, folder / name


def _step(states: set[int], name: str, pattern: list[str], is_folder: bool) -> set[int]:
    """Return the positions in the pattern after a name."""
    after = set()
    for state in states:
        if state == len(pattern):
            continue
        if pattern[state] == _ANY:
            after |= {state} if is_folder else set()
        elif _fits(name, pattern[state], is_folder):
            after.add(state + 1)
    after = _closure(after, pattern)
    return after - {len(pattern)} if is_folder else after


def _closure(states: set[int], pattern: list[str]) -> set[int]:
    """Add the positions behind each ``**``, which may stand for no folder."""
    reached = set(states)
    for state in sorted(states):
        while state < len(pattern) and pattern[state] == _ANY:
            state += 1
            reached.add(state)
    return reached


def _fits(name: str, pattern: str, is_folder: bool) -> bool:
    if is_folder:
        return fnmatchcase(name, pattern)
    plain, plain_pattern, states_suffix = plain_name(name), *_plain_pattern(pattern)
    if not states_suffix and not plain.endswith(_IMAGES):
        return False
    return fnmatchcase(name, pattern) or fnmatchcase(plain, plain_pattern)


@cache
def _plain_pattern(pattern: str) -> tuple[str, bool]:
    """Return a pattern with its suffix as `plain_name` spells it, and whether it states one."""
    suffix = PurePosixPath(pattern).suffix
    return plain_name(pattern), bool(suffix) and not set(suffix) & set("*?[")


def folder_names(image: str) -> tuple[str, ...]:
    """Return the names of the folders of an image below root, from the outermost."""
    return tuple(image.split("/")[:-1])


def folder_at(image: str, level: int) -> str | None:
    """Return one folder of an image: 1 is the first below root, -1 the one that holds the image.

    Returns:
        The folder's name; None if the image does not lie so deep.
    """
    names = folder_names(image)
    place = level - 1 if level > 0 else level
    return names[place] if -len(names) <= place < len(names) else None
