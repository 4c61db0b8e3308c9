"""Leaderboards from run records: derived, never edited, the same bytes each time."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboard.collect import GroupKey, LoadedRecord, collect_groups
from rscl_bench.leaderboard.comparisons import comparisons, comparisons_csv, contrast_of, pairs
from rscl_bench.leaderboard.image_intervals import FILE as IMAGE_INTERVALS
from rscl_bench.leaderboard.image_intervals import (
    Contrast,
    Intervals,
    image_intervals,
    intervals_text,
    read_intervals,
)
from rscl_bench.leaderboard.rows import leaderboard_rows
from rscl_bench.leaderboard.tables import Board, csv_table, markdown_table
from rscl_bench.spec import edition_folder


def build_leaderboard(sources: Path | Iterable[Path], out: Path) -> list[Path]:
    """Write one leaderboard per scenario, version, edition and resolved protocol.

    Each goes to ``<out>/<scenario>-v<version>[-sketch]/<protocol>[-<digest8>]/`` as
    ``leaderboard.csv``, ``leaderboard.md``, ``comparisons.csv`` and ``image-intervals.jsonl``. The
    last is read as well: it stands in for image scores that do not lie beside their records. The
    digest, of the resolved protocol, is there if every record of the group overrides the protocol.
    All tables are made before the first is written, so contradicting records leave the old ones as
    they are; each file is written whole.

    Args:
        sources: A folder, searched for ``*.json`` at any depth, a record file, or several.
        out: Folder of the leaderboards.

    Returns:
        The files written, sorted.

    Raises:
        ArtefactError: If there is no record, one is damaged, records contradict each other, or a
            file of image scores is not its record's.
    """
    groups = collect_groups([sources] if isinstance(sources, Path) else sources)
    tables: dict[Path, str] = {}
    owners: dict[Path, LoadedRecord] = {}
    for key, loaded in groups.items():
        folder = out / _folder(key, loaded)
        other = owners.setdefault(folder, loaded[0])
        if other is not loaded[0]:
            raise ArtefactError(
                f"{other.path} and {loaded[0].path} resolve protocol '{key.protocol}' of "
                f"{key.scenario} version {key.version} differently; give the changed scenario "
                "another version, or move one record away."
            )
        for name, text in _files(key, loaded, read_intervals(folder / IMAGE_INTERVALS)).items():
            tables[folder / name] = text
    for path in sorted(tables):
        write_atomic(path, tables[path])
    return sorted(tables)


def _files(
    key: GroupKey, loaded: Sequence[LoadedRecord], stored: Mapping[Contrast, Intervals]
) -> dict[str, str]:
    """Return the files of one leaderboard by name."""
    layout, rows = loaded[0].record, leaderboard_rows(loaded)
    contrasts = [
        contrast
        for probe in layout.probes
        for contrast in (
            *(row.contrast(probe.name) for row in rows),
            *(contrast_of(probe.name, *pair) for pair in pairs(rows)),
        )
        if contrast
    ]
    known = image_intervals(contrasts, loaded, stored)
    board = Board(key, loaded, rows, known, comparisons(rows, layout, known))
    return {
        "leaderboard.csv": csv_table(board),
        "leaderboard.md": markdown_table(board),
        "comparisons.csv": comparisons_csv(board.compared),
        IMAGE_INTERVALS: intervals_text(known, loaded),
    }


def _folder(key: GroupKey, loaded: Sequence[LoadedRecord]) -> Path:
    scenario = edition_folder(f"{key.scenario}-v{key.version}", key.edition)
    overridden = all(item.protocol_overrides() for item in loaded)
    return Path(scenario) / (
        f"{key.protocol}-{key.protocol_digest}" if overridden else key.protocol
    )
