"""Errors that a user can mend. Each message says what is wrong, where, and how to mend it."""

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class RsclError(Exception):
    """Base of all errors that the command line prints without a traceback."""


class SpecError(RsclError):
    """A scenario, protocol, method or ``--set`` is not valid."""


class ArchiveError(RsclError):
    """An archive is missing or partial, or holds a file that cannot be used."""


class ArtefactError(RsclError):
    """A tile store, record or leaderboard is damaged or cannot be written."""


class TrainingError(RsclError):
    """Training cannot continue, for example because the loss is not finite."""


def shown(text: str, longest: int = 600) -> str:
    """Return a text of strangers for a message, on one line.

    Every character that is not printable is written as its escape. A text of more than ``longest``
    characters is cut.
    """
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return plain if len(plain) <= longest else f"{plain[:longest]}…"


_LISTED, _NEAREST, _LONGEST = 24, 5, 200


def unknown(kind: str, name: str, known: "Iterable[str]") -> SpecError:
    """Return the error for an unknown name, with the nearest known name and what else is known.

    Of many known names, only the nearest few are listed.

    Args:
        kind: The kind of thing that the name stands for, such as ``"method"``.
        name: The unknown name.
        known: The known names.

    Returns:
        The error; the caller raises it.
    """
    names = sorted(set(known))
    near = get_close_matches(name[:_LONGEST], names, n=_NEAREST, cutoff=0.5)
    # A name that holds the given word comes first: "learning_rate" for "rate".
    word = name.rpartition(".")[2]
    near.sort(key=lambda other: word not in re.split("[._-]", other))
    hint = f"; did you mean '{near[0]}'?" if near else "."
    if len(names) > _LISTED:
        nearest = near or get_close_matches(name[:_LONGEST], names, n=_NEAREST, cutoff=0.0)
        listed = f"Nearest of {len(names)}: {', '.join(nearest)}"
    else:
        listed = f"Known: {', '.join(names) or 'none'}"
    return SpecError(f"Unknown {kind} '{name[:_LONGEST]}'{hint} {listed}.")
