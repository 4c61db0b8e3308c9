"""Builds leaderboards from run records; equal records give equal bytes."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.board import Board, leaderboard_frame, make_board
from rscl_bench.leaderboards.collect import LoadedRecord, collect_groups, group_folder
from rscl_bench.leaderboards.csv_tables import comparisons_csv, leaderboard_csv
from rscl_bench.leaderboards.image_intervals import FILE as IMAGE_INTERVALS
from rscl_bench.leaderboards.image_intervals import intervals_text, read_intervals
from rscl_bench.leaderboards.markdown import leaderboard_markdown


def build_leaderboard(sources: Path | Iterable[Path], out: Path) -> list[Path]:
    """Write one leaderboard per scenario, version, edition and resolved protocol.

    `group_folder` gives the folder of a leaderboard. The folder holds ``leaderboard.csv``,
    ``leaderboard.md``, ``comparisons.csv`` and ``image-intervals.jsonl``. An existing
    ``image-intervals.jsonl`` is read first: its intervals replace image scores that do not lie
    beside their records. All tables are made before the first is written, so contradicting records
    leave the old tables unchanged. Each file is written whole or not at all.

    Args:
        sources: One folder or record file, or several of them. Folders are searched for ``*.json``
            at any depth.
        out: Folder of the leaderboards.

    Returns:
        Paths of the written files, sorted.

    Raises:
        ArtefactError: If there is no record, a record is damaged, records contradict each other, or
            a file of image scores does not belong to its record.
    """
    files: dict[Path, str] = {}
    for folder, board in _boards(sources, out).items():
        files[out / folder / "leaderboard.csv"] = leaderboard_csv(board)
        files[out / folder / "leaderboard.md"] = leaderboard_markdown(board)
        files[out / folder / "comparisons.csv"] = comparisons_csv(board.compared)
        files[out / folder / IMAGE_INTERVALS] = intervals_text(board.known, board.loaded)
    for path in sorted(files):
        write_atomic(path, files[path])
    return sorted(files)


def leaderboards(sources: Path | Iterable[Path]) -> dict[str, pd.DataFrame]:
    """Return the leaderboards of records, without writing them.

    Args:
        sources: As in `build_leaderboard`.

    Returns:
        A frame per folder, such as ``scene4-v2/cpu``, with the columns of ``leaderboard.csv``.
        Numbers are not rounded; scores are in percent.

    Raises:
        ArtefactError: As in `build_leaderboard`.
    """
    return {str(folder): leaderboard_frame(b) for folder, b in _boards(sources, None).items()}


def _boards(sources: Path | Iterable[Path], stored: Path | None) -> dict[Path, Board]:
    """Return the leaderboards by folder.

    Args:
        sources: As in `build_leaderboard`.
        stored: Folder of earlier leaderboards with stored intervals; None to read none.
    """
    groups = collect_groups([sources] if isinstance(sources, Path) else sources)
    boards: dict[Path, Board] = {}
    owners: dict[Path, LoadedRecord] = {}
    for key, loaded in groups.items():
        folder = group_folder(key, loaded)
        other = owners.setdefault(folder, loaded[0])
        if other is not loaded[0]:
            raise ArtefactError(
                f"{other.path} and {loaded[0].path} resolve protocol '{key.protocol}' of "
                f"{key.scenario} version {key.version} differently; give the changed scenario "
                "another version, or move one record away."
            )
        intervals = {} if stored is None else read_intervals(stored / folder / IMAGE_INTERVALS)
        boards[folder] = make_board(key, loaded, intervals)
    return boards
