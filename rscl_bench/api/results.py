"""Read, validate and compare run records."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rscl_bench.api.arguments import output_folder, record_paths
from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    import pandas as pd

    from rscl_bench.results.publishing import Published
    from rscl_bench.results.schema import RunRecord
    from rscl_bench.results.validation import Verdict


def read_record(path: str | Path) -> "RunRecord":
    """Read and check a run record.

    Raises:
        ArtefactError: If the file cannot be read, is damaged or contradicts itself.
    """
    from rscl_bench.results.record import read_record

    return read_record(user_path(path, "The record"))


def records(*folders: str | Path) -> "pd.DataFrame":
    """Return all scores of the run records below folders, one row each.

    Returns:
        A row per run, task, probe, split and score; see
        `rscl_bench.leaderboards.frame.records_frame`.

    Raises:
        ArtefactError: If there is no record, or a record is damaged.
    """
    from rscl_bench.leaderboards.frame import records_frame
    from rscl_bench.results.files import find_records

    paths = find_records(record_paths(folders)).records
    return records_frame([read_record(path) for path in paths])


def leaderboard(records: "str | Path | Iterable[str | Path]") -> "dict[str, pd.DataFrame]":
    """Return the leaderboards of run records: one per scenario and protocol.

    Args:
        records: Folders or files of run records, one or more.

    Returns:
        The tables by folder, such as ``scene4-v2/cpu``. A table has a row per method and the
        columns of ``leaderboard.csv``. Scores are in percent and not rounded.

    Raises:
        ArtefactError: If there is no record, a record is damaged, or records contradict each other.
    """
    from rscl_bench.leaderboards.build import leaderboards

    return leaderboards(record_paths(records))


def write_leaderboards(
    records: "str | Path | Iterable[str | Path]", out: str | Path | None = None
) -> list[Path]:
    """Write one leaderboard per scenario, protocol and package version: CSV and Markdown.

    A table in ``out`` that holds other runs than the records is not replaced.

    Args:
        records: Folders or files of run records, one or more.
        out: Folder for the tables; None for the folder ``leaderboards`` in the first folder of
            records.

    Returns:
        The files written, sorted.

    Raises:
        ArtefactError: If there is no record, a record is damaged, records contradict each other, or
            a table in ``out`` holds runs that are not among the records.
    """
    from rscl_bench.leaderboards.build import build_leaderboard

    return build_leaderboard(record_paths(records), None if out is None else output_folder(out))


def power(
    records: "str | Path | Iterable[str | Path]", seeds: Sequence[int] = (3, 5, 8, 12, 20)
) -> "pd.DataFrame":
    """Return the differences between methods that numbers of seeds can separate.

    Args:
        records: Folders or files of run records, one or more.
        seeds: Numbers of seeds.

    Returns:
        A row per table, measure and number of seeds; see
        `rscl_bench.leaderboards.power.power_table`.

    Raises:
        SpecError: If a number of seeds is below two.
        ArtefactError: If the records are damaged, or too few.
    """
    from rscl_bench.leaderboards.power import power_table

    return power_table(record_paths(records), seeds)


def validate(records: "str | Path | Iterable[str | Path]") -> "dict[Path, Verdict]":
    """Check run records, and recompute every score from the scores of their images.

    Args:
        records: Folders or files of run records, one or more.

    Returns:
        The verdict by path of the record; see `rscl_bench.results.validation.Verdict`.

    Raises:
        ArtefactError: If there is no record.
    """
    from rscl_bench.results.files import find_records
    from rscl_bench.results.validation import verdicts

    return verdicts(find_records(record_paths(records)).records)


def publish(
    records: "str | Path | Iterable[str | Path]", into: str | Path, by: str = "the maintainers"
) -> "list[Published]":
    """Check finished runs, and publish their records with the packed scores of their images.

    Each run is validated first. Nothing is written if one is refused, and what is published is
    never replaced. A published run has the mark *recomputed*.

    Args:
        records: Folders or files of run records, one or more.
        into: Folder of published records.
        by: Who sets the marks.

    Returns:
        Path and mark of each published record.

    Raises:
        ArtefactError: If a record is refused, has no image scores, or another result of its run is
            published already; or if a file cannot be written.
    """
    from rscl_bench.results.files import find_records
    from rscl_bench.results.publishing import publish_runs

    return publish_runs(find_records(record_paths(records)).records, output_folder(into), by)


def foreign_files(records: "str | Path | Iterable[str | Path]") -> list[Path]:
    """Return the JSON files below folders that are no run records; other functions leave them out.

    Args:
        records: Folders or files of run records, one or more.
    """
    from rscl_bench.results.files import find_records

    return find_records(record_paths(records)).foreign
