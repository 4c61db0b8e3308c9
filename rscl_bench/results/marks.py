"""Marks beside published records: who has checked a run, and how far.

A mark lies beside a record in ``<record's name>.mark.json`` and never within it, since records are
never changed. A record without this file is *self-run*: whoever ran it is the only witness.
"""

import json
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

import rscl_bench
from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError, shown
from rscl_bench.results.reading import read_json
from rscl_bench.results.text import Line
from rscl_bench.spec import Spec, first_problem

SUFFIX = ".mark.json"
MarkName = Literal["self-run", "recomputed", "reproduced"]
SELF_RUN: MarkName = "self-run"
#: From the weakest to the strongest.
MARKS: tuple[MarkName, ...] = ("self-run", "recomputed", "reproduced")
_MEND = "set the mark again with `rscl-bench leaderboard publish`, or remove the file"


class Mark(Spec):
    """A mark of a record.

    Attributes:
        mark: ``recomputed``: all scores of the record were computed again from the scores of its
            images. ``reproduced``: the encoder of the run was moreover probed again on another
            machine, from archives with the record's digests.
        by: Who set the mark.
        tool: Program and version that did the check.
        record: SHA-256 of the record's file.
        machine: Machine that probed the encoder again; None unless ``reproduced``.
    """

    mark: Literal["recomputed", "reproduced"]
    by: Annotated[Line, Field(min_length=1)]
    tool: Annotated[Line, Field(min_length=1)]
    record: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    machine: Line | None = None


def mark_path(record: Path) -> Path:
    """Return the path of the mark of a record file."""
    return record.with_name(record.stem + SUFFIX)


def write_mark(path: Path, mark: MarkName, by: str, machine: str | None = None) -> None:
    """Write the mark of a record file; a mark that is as strong or stronger stays.

    Raises:
        ArtefactError: If the file cannot be written, or an earlier mark is damaged.
    """
    earlier = read_mark(path)
    if mark == "self-run" or (earlier and MARKS.index(earlier.mark) >= MARKS.index(mark)):
        return
    written = Mark(
        mark=mark,
        by=by,
        tool=f"rscl-bench {rscl_bench.__version__}",
        record=sha256(path.read_bytes()).hexdigest(),
        machine=machine,
    )
    content = written.model_dump(mode="json", exclude_none=True)
    write_atomic(mark_path(path), json.dumps(content, indent=2) + "\n")


def read_mark(path: Path) -> Mark | None:
    """Return the mark of a record file; None if it has none.

    Raises:
        ArtefactError: If the file of the mark cannot be read, is damaged, or is of another record.
    """
    file = mark_path(path)
    if not os.path.lexists(file):
        return None
    text, _ = read_json(file, _MEND)
    try:
        mark = Mark.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ArtefactError(f"{file}: {shown(first_problem(error))}; {_MEND}.") from error
    if mark.record != sha256(path.read_bytes()).hexdigest():
        raise ArtefactError(
            f"{file} is the mark of another record than {path}: the field 'record' is not the "
            f"file's SHA-256; {_MEND}."
        )
    return mark


def mark_name(path: Path) -> MarkName:
    """Return the name of the mark of a record file.

    Raises:
        ArtefactError: As in `read_mark`.
    """
    mark = read_mark(path)
    return SELF_RUN if mark is None else mark.mark


def weakest(marks: Iterable[MarkName]) -> MarkName:
    """Return the weakest of marks: a row is checked as far as all of its runs are."""
    return min(marks, key=MARKS.index)


def strongest(marks: Iterable[MarkName]) -> MarkName:
    """Return the strongest of marks."""
    return max(marks, key=MARKS.index)
