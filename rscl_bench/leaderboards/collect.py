"""Loads run records, groups them by leaderboard, and checks that they fit together."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.keys import GroupKey, LoadedRecord, RowKey, group_key, row_key
from rscl_bench.leaderboards.pixels import check_pixels
from rscl_bench.results.agreement import Filed, disagreements
from rscl_bench.results.files import find_records
from rscl_bench.results.marks import mark_name, strongest
from rscl_bench.results.packed_scores import has_scores
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord

# What can make the digests of one archive differ, by format of the records.
_CAUSES = {
    2: (
        "in this format, the digests are of decoded pixels, and they differ between versions of "
        "rasterio, GDAL or Pillow as well as between copies of an archive; "
    ),
    3: "the files of the archives, or how they are cut, differ; ",
}


def collect_groups(sources: Iterable[Path]) -> dict[GroupKey, list[LoadedRecord]]:
    """Load the records below folders and group them.

    Args:
        sources: Folders and record files. Folders are searched for ``*.json`` at any depth.

    Returns:
        The records of each group, not checked yet; see `distinct_records`. The order of groups
        does not depend on the paths of the files.

    Raises:
        ArtefactError: If there is no record, or a record or a mark is damaged.
    """
    groups: dict[GroupKey, list[LoadedRecord]] = {}
    for path in find_records(sources).records:
        loaded = LoadedRecord(path, read_record(path), mark_name(path))
        groups.setdefault(group_key(loaded.record), []).append(loaded)
    if not groups:
        raise ArtefactError("There is no run record to build a leaderboard from; run a method.")
    return {key: groups[key] for key in sorted(groups)}


def distinct_records(loaded: Sequence[LoadedRecord]) -> list[LoadedRecord]:
    """Return the records of one group by row and seed, without exact copies.

    Raises:
        ArtefactError: If two records contradict each other: they have different data under equal
            names, different results for one row and seed, or values that cannot both be true.
    """
    _check_same_data(loaded)
    disagreement = next(disagreements(Filed(i.path, i.record) for i in loaded), None)
    if disagreement:
        raise ArtefactError(disagreement.sentence)
    return _distinct(loaded)


def _check_same_data(loaded: Sequence[LoadedRecord]) -> None:
    """Refuse records with different tasks, probes or data.

    Raises:
        ArtefactError: If two records differ.
    """
    _check_equal(loaded, "identity.scenario.digest", lambda r: r.identity.scenario.digest)
    causes = _CAUSES[loaded[0].record.format]
    for name in sorted({key for item in loaded for key in item.record.identity.data}):
        _check_equal(loaded, f"identity.data.{name}", partial(_digest, name), causes)
    _check_equal(loaded, "tasks (names, tiles)", lambda r: [(t.name, t.tiles) for t in r.tasks])
    _check_equal(loaded, "probes", lambda r: r.probes)
    check_pixels(loaded)


def _digest(name: str, record: RunRecord) -> str | None:
    return record.identity.data.get(name)


def _check_equal(
    loaded: Sequence[LoadedRecord],
    field: str,
    value: Callable[[RunRecord], Any],
    causes: str = "",
) -> None:
    """Refuse records with different values of a field.

    Raises:
        ArtefactError: If two records differ. The message names both files, the field and the
            causes.
    """
    first = loaded[0]
    for other in loaded[1:]:
        if value(first.record) != value(other.record):
            raise ArtefactError(
                f"{first.path} and {other.path} differ in the field '{field}', so they cannot "
                f"stand on one leaderboard; {causes}move one of them away or run it again."
            )


def _distinct(loaded: Sequence[LoadedRecord]) -> list[LoadedRecord]:
    """Sort records by row and seed, drop exact copies, and refuse contradictions.

    Raises:
        ArtefactError: If two records of one row and seed differ, or two records of one row differ
            in method or number of parameters.
    """
    kept: dict[tuple[RowKey, int], LoadedRecord] = {}
    for item in loaded:
        row = row_key(item.record)
        earlier = kept.setdefault((row, item.seed), item)
        if earlier.record != item.record:
            devices = [one.record.provenance.device for one in (earlier, item)]
            raise ArtefactError(
                f"{earlier.path} and {item.path} are both {row.method} with seed {item.seed} "
                f"in {row.precision}, trained on {' and on '.join(dict.fromkeys(devices))}; keep "
                "the one that counts and move the other away."
            )
        # A published copy may have no image scores, and the copy of the run has no mark.
        chosen = earlier if has_scores(earlier.path) else item
        mark = strongest((earlier.mark, item.mark))
        kept[row, item.seed] = replace(chosen, mark=mark)
    rows: dict[RowKey, list[LoadedRecord]] = {}
    for row, seed in sorted(kept):
        rows.setdefault(row, []).append(kept[row, seed])
    for members in rows.values():
        _check_equal(members, "identity.method", lambda r: r.identity.method)
        _check_equal(members, "parameters", lambda r: r.parameters)
    return [item for members in rows.values() for item in members]
