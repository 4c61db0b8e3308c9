"""Finds the run records among files and folders."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rscl_bench.errors import ArtefactError
from rscl_bench.results.marks import SUFFIX as MARK
from rscl_bench.results.reading import read_json
from rscl_bench.results.tuning import FOLDER

#: Fields of every run record; no other file of this package has one of them.
_MARKS = ("identity", "provenance", "image_scores_digest", "pixel_statistics")


class RecordFiles(NamedTuple):
    """The JSON files below the sources.

    Attributes:
        records: Files that hold a run record, sound or damaged, sorted.
        foreign: Files below folders that hold other JSON, sorted.
    """

    records: list[Path]
    foreign: list[Path]


def find_records(sources: Iterable[Path]) -> RecordFiles:
    """Return all files among the sources, and all JSON files below the folders.

    A file that is given by its own path counts as a record. A file below a folder counts as a
    record unless its JSON has none of the fields of a record. So a damaged record is not left out.
    Folders are searched without following links to folders. The folder of tunings and the marks
    of records are left out.

    Raises:
        ArtefactError: If a source does not exist.
    """
    records: set[Path] = set()
    foreign: set[Path] = set()
    for source in sources:
        if not os.path.lexists(source):
            raise ArtefactError(f"There is no file or folder '{source}'; give a path to records.")
        if not source.is_dir():
            records.add(_absolute(source))
            continue
        for path in source.rglob("*.json"):
            if path.relative_to(source).parts[0] == FOLDER or path.is_dir():
                continue
            if not _is_foreign(path):
                records.add(_absolute(path))
            elif not path.name.endswith(MARK):
                foreign.add(_absolute(path))
    return RecordFiles(sorted(records), sorted(foreign - records))


def _absolute(path: Path) -> Path:
    # The target of a link that leads nowhere, or to a device, would not tell which file is meant.
    return path.resolve() if path.is_file() else path.absolute()


def _is_foreign(path: Path) -> bool:
    try:
        _, raw = read_json(path, "")
    except ArtefactError:
        return False
    return not (isinstance(raw, dict) and any(mark in raw for mark in _MARKS))
