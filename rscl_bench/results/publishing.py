"""Publishes runs with their packed scores, after checking them as `validation` does."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rscl_bench.errors import ArtefactError
from rscl_bench.results.agreement import Filed, disagreements
from rscl_bench.results.files import find_records
from rscl_bench.results.folders import protocol_folder
from rscl_bench.results.marks import MarkName, mark_name, write_mark
from rscl_bench.results.published import publish, published_path
from rscl_bench.results.record import read_record
from rscl_bench.results.validation import Verdict, verdicts


class Published(NamedTuple):
    """A published run: path of its record below the folder, and its mark."""

    path: Path
    mark: MarkName


def publish_runs(paths: Sequence[Path], folder: Path, by: str) -> list[Published]:
    """Check records, publish them with their packed scores, and mark what was recomputed.

    Nothing is written if one record is refused.

    Args:
        paths: Record files.
        folder: Folder of published records.
        by: Who sets the marks.

    Returns:
        The published records in the order of ``paths``.

    Raises:
        ArtefactError: If a record is refused, has no image scores, or another result of its run is
            published already; or if a file cannot be written.
    """
    judged = verdicts(paths)
    for path, verdict in judged.items():
        _check_verdict(path, verdict)
    records = {path: read_record(path) for path in judged}
    for path, record in records.items():
        target = published_path(record, folder)
        if target.is_file() and target.read_bytes() != path.read_bytes():
            raise ArtefactError(
                f"{target} holds another result of the run {record.id} than {path}, and published "
                "records are never replaced; leave this run out."
            )
    check_beside_published({path: Filed(path, record) for path, record in records.items()}, folder)
    published = []
    for path, record in records.items():
        target = publish(path, record, folder)
        write_mark(target, "recomputed", by)
        published.append(Published(target, mark_name(target)))
    return published


def check_beside_published(given: dict[Path, Filed], folder: Path) -> None:
    """Refuse records that cannot be true beside the published ones.

    Args:
        given: New records by path.
        folder: Folder of published records.

    Raises:
        ArtefactError: If two records contradict each other; the message names both files.
    """
    folders = {protocol_folder(folder, item.record.identity) for item in given.values()}
    own = {item.record.id for item in given.values()}
    present = find_records([one for one in sorted(folders) if one.is_dir()]).records
    others = [Filed(path, read_record(path)) for path in present]
    beside = [item for item in others if item.record.id not in own]
    for disagreement in disagreements([*beside, *given.values()]):
        if any(path in given for path in disagreement.paths):
            raise ArtefactError(disagreement.sentence)


def _check_verdict(path: Path, verdict: Verdict) -> None:
    if verdict.state == "refused":
        raise ArtefactError(verdict.reason)
    if verdict.state == "not recomputable":
        raise ArtefactError(
            f"{path} cannot be recomputed: {verdict.reason}; publish the folder of the run, which "
            "holds them."
        )
