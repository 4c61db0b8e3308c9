"""Reads JSON files that others wrote: bounded, strict, and without a traceback."""

import json
import stat
from collections import Counter
from pathlib import Path
from typing import Any

from rscl_bench.errors import ArtefactError

#: Most bytes of a record or a tuning. A record of 100 tasks and 100 probes has about 4 MB.
LARGEST = 16 * 2**20


def read_json(path: Path, mend: str) -> tuple[str, Any]:
    """Read a JSON file.

    Args:
        path: The file.
        mend: The clause of an error message that says what to do with a damaged file.

    Returns:
        The text and its value.

    Raises:
        ArtefactError: If the file cannot be read, is no regular file, is too large, or is not
            strict JSON in UTF-8. An object with a key twice is refused, since its readers disagree
            about its value.
    """
    content = read_regular(path, LARGEST)
    try:
        text = content.decode("utf-8")
        return text, json.loads(text, object_pairs_hook=_distinct)
    except RecursionError as error:
        raise ArtefactError(f"{path} is damaged (nested too deeply); {mend}.") from error
    except ValueError as error:  # not UTF-8, not JSON, or a number of too many digits
        raise ArtefactError(f"{path} is damaged ({error}); {mend}.") from error


def read_regular(path: Path, largest: int) -> bytes:
    """Return the content of a regular file.

    Raises:
        ArtefactError: If the file cannot be read, is no regular file, or has more bytes than
            ``largest``.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a pipe or a device would never end
            raise ArtefactError(f"{path} is no regular file; move it away.")
        if status.st_size > largest:
            raise ArtefactError(
                f"{path} has {status.st_size} bytes, and at most {largest} are read; move it away."
            )
        return path.read_bytes()
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be read ({error.strerror or error}); check the path and its "
            "permissions."
        ) from error
    except (RuntimeError, ValueError) as error:  # a link to itself; a NUL in the path
        raise ArtefactError(f"{path} cannot be read ({error}); check the path.") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        counted = Counter(name for name, _ in pairs)
        twice = counted.most_common(1)[0][0]
        raise ValueError(f"the key {twice[:60]!r} stands twice in one object")
    return values
