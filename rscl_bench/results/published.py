"""Published records: one file for each run, named by method, seed and id, and its packed scores."""

from pathlib import Path

from rscl_bench.atomic import write_atomic
from rscl_bench.results.folders import protocol_folder
from rscl_bench.results.image_scores import read_image_scores
from rscl_bench.results.marks import SUFFIX as MARK
from rscl_bench.results.packed_scores import (
    packed_scores_path,
    read_packed_scores,
    write_packed_scores,
)
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord


def published_path(record: RunRecord, folder: Path) -> Path:
    """Return the path ``SCENARIO/PROTOCOL/METHOD-seedN-ID.json`` of a record below a folder."""
    identity = record.identity
    name = f"{identity.method['name']}-seed{identity.seed}-{record.id}.json"
    return protocol_folder(folder, identity) / name


def published_records(folder: Path) -> dict[str, Path]:
    """Return the files of published records below a folder by the id of the run.

    The files are found by their names and not read.
    """
    return {
        path.stem.rpartition("-")[2]: path
        for path in sorted(folder.glob("*/*/*-seed*-*.json"))
        if not path.name.endswith(MARK)
    }


def publish(record_path: Path, record: RunRecord, folder: Path) -> Path:
    """Copy the file of a record to its published path, byte for byte, and pack its image scores.

    What is published is never replaced. The scores are packed from the image scores beside the
    record; without these, packed scores beside the record are copied.

    Args:
        record_path: File of the record.
        record: Content of that file.
        folder: Folder of published records.

    Returns:
        Path of the published record.

    Raises:
        ArtefactError: If a file cannot be written, or the image scores do not belong to the record.
    """
    target = published_path(record, folder)
    # The same run on another machine has the same path and other image scores.
    if not target.is_file() or _digest(target) == record.image_scores_digest:
        _publish_scores(record_path, record, target)
    if not target.is_file():  # after its scores: an interrupted call is taken up again
        write_atomic(target, record_path.read_bytes())
    return target


def _digest(published: Path) -> str:
    return read_record(published).image_scores_digest


def _publish_scores(record_path: Path, record: RunRecord, target: Path) -> None:
    if packed_scores_path(target).is_file():
        return
    images = read_image_scores(record_path, record)
    if images is not None:
        write_packed_scores(images, record, target)
    elif read_packed_scores(record_path, record) is not None:
        write_atomic(packed_scores_path(target), packed_scores_path(record_path).read_bytes())
