"""Stores intervals over test images beside a table, and finds them again.

The file has one JSON object per line: first the settings and the runs of the table, then the
intervals.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rscl_bench.errors import ArtefactError, shown
from rscl_bench.leaderboards.image_intervals import Contrast, Intervals
from rscl_bench.leaderboards.places import places_beside
from rscl_bench.leaderboards.statistics import LEVEL, RESAMPLES, Interval
from rscl_bench.results.reading import read_regular

FILE = "image-intervals.jsonl"
# A table of 1,000 rows has 500,000 pairs, of about 300 bytes each.
_LARGEST = 2**28
_SETTINGS = {"level": LEVEL, "method": "percentile", "resamples": RESAMPLES}


class StoredRun(NamedTuple):
    """One run of a table: digest of its image scores, and its id."""

    digest: str
    id: str


class StoredTable(NamedTuple):
    """What the file beside a table says.

    Attributes:
        runs: Runs of the table. Tables of versions before 0.4 list only runs with an interval.
        intervals: Stored intervals; empty if the file was made with other settings.
    """

    runs: tuple[StoredRun, ...]
    intervals: Mapping[Contrast, Intervals]


def stored_tables(folder: Path) -> dict[Path, StoredTable]:
    """Return the stored tables below a folder of leaderboards, by folder of the table.

    Raises:
        ArtefactError: If a file cannot be read or is damaged.
    """
    paths = sorted(folder.glob(f"*/*/{FILE}"))
    return {path.parent.relative_to(folder): read_table(path) for path in paths}


def intervals_beside(sources: Iterable[Path], scenario: str) -> dict[Contrast, Intervals]:
    """Return the intervals of the tables of one scenario that lie beside the records.

    The folders of tables are looked for in every folder above a source, in the source, and in its
    subfolder ``leaderboards``.

    Args:
        sources: Folders and record files.
        scenario: Folder of the scenario's tables, such as ``scene4-v2``.

    Raises:
        ArtefactError: If a file cannot be read or is damaged.
    """
    found: dict[Contrast, Intervals] = {}
    for place in places_beside(sources):
        for path in sorted(place.glob(f"{scenario}/*/{FILE}")):
            found.update(read_table(path).intervals)
    return found


def table_text(runs: Iterable[StoredRun], intervals: Mapping[Contrast, Intervals]) -> str:
    """Return the content of the file that `read_table` reads.

    Args:
        runs: Runs of the table and of the intervals.
        intervals: Known intervals.
    """
    listed = sorted(set(runs))
    position = {run.digest: index for index, run in enumerate(listed)}
    lines: list[dict[str, Any]] = [
        {
            **_SETTINGS,
            "runs": [{"id": run.id, "image_scores_digest": run.digest} for run in listed],
        }
    ]
    for contrast, (micro, macro) in intervals.items():
        line = {
            "probe": contrast.probe,
            "after": contrast.after,
            "of": [position[digest] for digest in contrast.of],
            "minus": [position[digest] for digest in contrast.minus],
            "micro": micro,
            "macro": macro,
        }
        lines.append(line)
    return "".join(json.dumps(line) + "\n" for line in lines)


def read_table(path: Path) -> StoredTable:
    """Read the file beside a table; a table without the file has no runs and no intervals.

    Raises:
        ArtefactError: If the file cannot be read or is damaged.
    """
    if not os.path.lexists(path):
        return StoredTable((), {})
    content = read_regular(path, _LARGEST)
    try:
        head, *lines = [json.loads(line) for line in content.decode("utf-8").splitlines()]
        runs = tuple(StoredRun(run["image_scores_digest"], run["id"]) for run in head["runs"])
        if {name: head[name] for name in _SETTINGS} != _SETTINGS:
            return StoredTable(runs, {})
        intervals = {
            _contrast(line, runs): (_ends(line["micro"]), _ends(line["macro"])) for line in lines
        }
        return StoredTable(runs, intervals)
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise ArtefactError(
            f"{path} is damaged ({shown(repr(error))}); restore it from where it was published, or "
            "remove it and build again beside the image scores."
        ) from error


def _contrast(line: dict[str, Any], runs: Sequence[StoredRun]) -> Contrast:
    of, minus = (
        tuple(runs[position].digest for position in line[side]) for side in ("of", "minus")
    )
    return Contrast(line["probe"], line["after"], of, minus)


def _ends(pair: list[float] | None) -> Interval | None:
    if pair is None:
        return None
    low, high = pair
    if not -1 <= low <= high <= 1:  # NaN neither
        raise ValueError(f"{low!r:.60} to {high!r:.60} is no interval of fractions")
    return Interval(float(low), float(high))
