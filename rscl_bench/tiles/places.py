"""The places of a tile store: the folders of the archive that its tiles were taken for.

A store is named by the content of its source files, and not by their folder. Each folder that holds
these files is a place of the store, with the listing of the files when they were last compared. As
long as the listing stays the same, the files are not compared again.
"""

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError


@dataclass(frozen=True)
class Place:
    """A folder of an archive.

    Attributes:
        folder: The folder, resolved.
        listing: Key of name, size and modification time of every source file.
    """

    folder: Path
    listing: str

    def _file(self, store: Path) -> Path:
        key = sha256(os.fsencode(self.folder)).hexdigest()[:16]
        return store / f"place-{key}.json"

    def is_known(self, store: Path) -> bool:
        """Return whether this place, with this listing, was remembered for a store."""
        return _read(self._file(store)) == self

    def remember(self, store: Path) -> None:
        """Save this place, and that the store was used now."""
        content = {"folder": str(self.folder), "listing": self.listing}
        with suppress(ArtefactError, OSError, UnicodeError):  # A read-only store forgets.
            if self.is_known(store):
                os.utime(self._file(store))
            else:
                write_atomic(self._file(store), json.dumps(content))

    def forget(self, store: Path) -> bool:
        """Forget this folder; return whether the store has lost its last place."""
        try:
            self._file(store).unlink()
        except OSError:
            return False
        return not places(store)


def places(store: Path) -> list[tuple[Place, float]]:
    """Return the places of a store, and when the store was last used for each (seconds, UTC)."""
    found = []
    for path in sorted(store.glob("place-*.json")):
        place = _read(path)
        with suppress(OSError):
            if place is not None:
                found.append((place, path.stat().st_mtime))
    return found


def _read(path: Path) -> Place | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Place(Path(content["folder"]), str(content["listing"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
