"""Names the folders in which tables and tunings of records are looked for."""

from collections.abc import Iterable
from pathlib import Path

#: Name of the folder of tables beside the records.
TABLES = "leaderboards"


def places_beside(sources: Iterable[Path]) -> list[Path]:
    """Return the folders above the sources, the sources, and their subfolders of tables.

    Args:
        sources: Folders and record files.
    """
    places: dict[Path, None] = {}
    for source in sources:
        whole = source.resolve()
        places |= dict.fromkeys([*reversed(whole.parents), whole, whole / TABLES])
    return list(places)
