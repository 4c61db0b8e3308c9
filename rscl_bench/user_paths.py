"""Paths that a user gives: on the command line, in the environment, in a TOML or in Python."""

import os
from pathlib import Path

from rscl_bench.errors import SpecError


def user_path(given: str | Path, what: str) -> Path:
    """Return a path with the user's home folder in place of a leading ``~``.

    A shell expands ``--out ~/runs`` and leaves ``--out=~/runs`` alone, and so do environment
    variables and Python.

    Args:
        given: The path.
        what: What the path is, as the subject of a message.

    Raises:
        SpecError: If no file can have this path: it holds a null byte, or is too long.
    """
    text = str(given)
    shown = text if len(text) < 80 else f"{text[:40]}...{text[-20:]}"
    if "\0" in text:
        raise SpecError(f"{what} {shown!r} holds a null byte, so that it is no path.")
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise SpecError(f"{what} '{shown}' names the home of an unknown user.") from error
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        pass  # whoever opens it says so
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SpecError(f"{what} '{shown}' is no usable path ({reason}).") from error
    return path
