"""Builds leaderboards from run records; equal records give equal tables."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import pandas as pd

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.board import Board, leaderboard_frame, make_board
from rscl_bench.leaderboards.collect import collect_groups, distinct_records
from rscl_bench.leaderboards.csv_tables import (
    comparisons_csv,
    costs_csv,
    leaderboard_csv,
    scores_csv,
)
from rscl_bench.leaderboards.keys import group_folders, shared_key
from rscl_bench.leaderboards.markdown import leaderboard_markdown
from rscl_bench.leaderboards.page.document import leaderboard_page
from rscl_bench.leaderboards.page.index import index_page
from rscl_bench.leaderboards.places import TABLES
from rscl_bench.leaderboards.stored_intervals import FILE as IMAGE_INTERVALS
from rscl_bench.leaderboards.stored_intervals import (
    StoredRun,
    StoredTable,
    intervals_beside,
    stored_tables,
    table_text,
)
from rscl_bench.leaderboards.tunings import tunings_beside
from rscl_bench.results.packed_scores import has_scores

#: Name of the page of a leaderboard, and of the page that lists the leaderboards.
PAGE = "index.html"


def build_leaderboard(
    sources: Path | Iterable[Path],
    out: Path | None = None,
    only: Collection[str] | None = None,
) -> list[Path]:
    """Write one leaderboard per scenario, version, edition, resolved protocol and package version.

    `group_folders` gives the folder of a leaderboard. The folder holds ``leaderboard.csv``,
    ``leaderboard.md``, ``index.html``, ``comparisons.csv``, ``costs.csv``, ``scores.csv`` and
    ``image-intervals.jsonl``. ``index.html`` in ``out`` lists all tables that lie there. Stored
    intervals replace image scores that do not lie beside their records; they are read from ``out``
    and from the tables beside the records. All tables are made before the first is written, so
    contradicting records leave the old tables unchanged. Each file is written whole or not at all.

    Args:
        sources: One folder or record file, or several of them. Folders are searched for ``*.json``
            at any depth.
        out: Folder of the leaderboards; None for the folder ``leaderboards`` in the first source.
        only: Ids of runs: only the leaderboards of these runs' protocols are written. None for all.

    Returns:
        Paths of the written files, sorted.

    Raises:
        ArtefactError: If there is no record, a record is damaged, records contradict each other, a
            file of image scores does not belong to its record, or a table in ``out`` holds runs
            that are not among the records.
    """
    given = _listed(sources)
    target = default_folder(given) if out is None else out
    # The old tables are read before the records. So a run that another process records and puts
    # into a table meanwhile is among the records.
    held = stored_tables(target)
    boards = _boards(given, held, only)
    _check_kept(held, boards, target)
    files: dict[Path, str] = {}
    for folder, board in boards.items():
        files[target / folder / "leaderboard.csv"] = leaderboard_csv(board)
        files[target / folder / "leaderboard.md"] = leaderboard_markdown(board)
        files[target / folder / "comparisons.csv"] = comparisons_csv(board.compared)
        files[target / folder / "costs.csv"] = costs_csv(board)
        files[target / folder / "scores.csv"] = scores_csv(board)
        files[target / folder / PAGE] = leaderboard_page(board)
        files[target / folder / IMAGE_INTERVALS] = _intervals_text(board, held)
    for path in sorted(files):
        write_atomic(path, files[path])
    # The list shows all tables in the folder, also those that this build did not write.
    write_atomic(target / PAGE, index_page(target))
    return sorted([*files, target / PAGE])


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
    return {str(folder): leaderboard_frame(board) for folder, board in boards_of(sources).items()}


def boards_of(
    sources: Path | Iterable[Path], only: Collection[str] | None = None
) -> dict[Path, Board]:
    """Return the contents of the leaderboards of records by folder, without writing them.

    Args:
        sources: As in `build_leaderboard`.
        only: As in `build_leaderboard`.

    Raises:
        ArtefactError: As in `build_leaderboard`.
    """
    return _boards(_listed(sources), {}, only)


def default_folder(sources: Iterable[Path]) -> Path:
    """Return the folder of tables beside the records of the first source.

    Raises:
        ArtefactError: If there is no source.
    """
    for source in sources:
        return (source if source.is_dir() else source.parent) / TABLES
    raise ArtefactError("There is no run record to build a leaderboard from; run a method.")


def _listed(sources: Path | Iterable[Path]) -> list[Path]:
    return [sources] if isinstance(sources, Path) else list(sources)


def _boards(
    sources: list[Path], held: Mapping[Path, StoredTable], only: Collection[str] | None
) -> dict[Path, Board]:
    """Return the leaderboards by folder.

    Args:
        sources: As in `build_leaderboard`.
        held: Earlier tables in the folder of the leaderboards.
        only: As in `build_leaderboard`.
    """
    groups = collect_groups(sources)
    wanted = {
        shared_key(key)
        for key, loaded in groups.items()
        if only is None or any(item.record.id in only for item in loaded)
    }
    boards: dict[Path, Board] = {}
    for key, folder in sorted(group_folders(groups).items(), key=lambda item: item[1]):
        if shared_key(key) not in wanted:
            continue
        intervals = intervals_beside(sources, folder.parts[0])
        for table in held.values():
            intervals.update(table.intervals)
        tunings = tunings_beside(sources, key)
        boards[folder] = make_board(key, distinct_records(groups[key]), intervals, tunings)
    return boards


def _check_kept(held: Mapping[Path, StoredTable], boards: Mapping[Path, Board], out: Path) -> None:
    """Refuse to write tables without the runs that the old tables hold.

    Raises:
        ArtefactError: If a run of a table is not among the records.
    """
    given = {item.record.id for board in boards.values() for item in board.loaded}
    for folder in boards:
        runs = held[folder].runs if folder in held else ()
        missing = sorted({run.id for run in runs} - given)
        if missing:
            raise ArtefactError(
                f"The table in {out / folder} holds {len(missing)} runs that are not among the "
                f"records, such as {missing[0]}; name the folder of their records too, choose "
                "another --out, or remove the table's folder."
            )


def _intervals_text(board: Board, held: Mapping[Path, StoredTable]) -> str:
    """Return the stored intervals of a table: the known ones, and those that would be lost.

    An interval in an old table is kept if its runs stand in this table, and it cannot be computed
    again, since image scores of these runs do not lie beside their records.
    """
    runs = [StoredRun(i.record.image_scores_digest, i.record.id) for i in board.loaded]
    own = {run.digest for run in runs}
    with_images = {
        item.record.image_scores_digest for item in board.loaded if has_scores(item.path)
    }
    kept = dict(board.known)
    for table in held.values():
        for contrast, intervals in table.intervals.items():
            if contrast.runs <= own and not contrast.runs <= with_images:
                kept.setdefault(contrast, intervals)
    return table_text(runs, kept)
