"""Errors that a user can mend: one sentence with what is wrong, where, and the mend."""

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class RsclError(Exception):
    """Base of all errors that the command line prints as one sentence, without a traceback."""


class SpecError(RsclError):
    """A scenario, protocol, method or ``--set`` that is not valid."""


class ArchiveError(RsclError):
    """An archive that is missing, partial or holds a file that cannot be used."""


class ArtefactError(RsclError):
    """A tile store, record or leaderboard that is damaged or cannot be written."""


class TrainingError(RsclError):
    """Training that cannot go on, such as a loss that is not finite."""


def unknown(kind: str, name: str, known: "Iterable[str]") -> SpecError:
    """Return the error for an unknown name, with the nearest known one.

    Args:
        kind: What the name is of, as it stands in the sentence (``"method"``).
        name: The name that is not known.
        known: The names that are.

    Returns:
        The error, to be raised by the caller.
    """
    names = sorted(known)
    near = get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else "."
    listed = ", ".join(names) or "none"
    return SpecError(f"Unknown {kind} '{name}'{hint} Known: {listed}.")
