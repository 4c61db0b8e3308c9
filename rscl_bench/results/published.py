"""Published records: one file for each run, named by method, seed and id."""

from pathlib import Path

from rscl_bench.atomic import write_atomic
from rscl_bench.results.folders import protocol_folder
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
        path.stem.rpartition("-")[2]: path for path in sorted(folder.glob("*/*/*-seed*-*.json"))
    }


def publish(record_path: Path, record: RunRecord, folder: Path) -> Path:
    """Copy the file of a record to its published path, byte for byte.

    Raises:
        ArtefactError: If the file cannot be written.
    """
    target = published_path(record, folder)
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(target, record_path.read_text(encoding="utf-8"))
    return target
