"""Checks a submission against the published records, and says what it would change."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.build import boards_of
from rscl_bench.leaderboards.keys import row_key
from rscl_bench.results.agreement import Filed
from rscl_bench.results.files import find_records
from rscl_bench.results.image_scores import image_scores_path
from rscl_bench.results.published import published_path
from rscl_bench.results.publishing import check_beside_published
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.results.validation import verdicts
from rscl_bench.spec import edition_folder
from rscl_bench.submissions.bundle import RECIPE, Bundle
from rscl_bench.submissions.difference import TableDifference, difference
from rscl_bench.submissions.recipes import check_recipe, code_files, is_content


@dataclass(frozen=True)
class Checked:
    """What was found in a submission that is not refused.

    Attributes:
        records: The records by path in the unpacked bundle.
        tables: What the tables would show otherwise, one for each table.
        notes: What a maintainer should know, one sentence each.
    """

    records: dict[Path, RunRecord]
    tables: list[TableDifference]
    notes: list[str]


def check_bundle(bundle: Bundle, published: Path) -> Checked:
    """Check the records of a bundle, recompute their scores, and compare them with the tables.

    Args:
        bundle: The unpacked bundle.
        published: Folder of published records.

    Raises:
        ArtefactError: If a record is refused or has no image scores; if its recipe or code is not
            the one of the record; if it is published already, or stands in a row of others; if it
            was made from other archives than the table, or contradicts a published record; or if
            a published row would change or lose its rank.
    """
    judged = verdicts(bundle.records)
    for verdict in judged.values():
        if verdict.state == "refused":
            raise ArtefactError(verdict.reason)
    records = {path: read_record(path) for path in judged}
    for path, record in records.items():
        _check_files(bundle, path, record)
    others = _published_beside(records, published)
    for path, record in records.items():
        _check_new(path, record, others, published)
        _check_archives(record, others)
    check_beside_published({p: Filed(p, record) for p, record in records.items()}, published)
    tables = _differences(bundle, records, published)
    notes = [f"{path.parent.name}: {note}" for path in judged for note in judged[path].notes]
    return Checked(records, tables, notes + [note for table in tables for note in table.notes])


def _check_files(bundle: Bundle, path: Path, record: RunRecord) -> None:
    """Check that a run has its image scores, its recipe and its code."""
    if path.parent.name != record.id:
        raise ArtefactError(f"The folder runs/{path.parent.name} holds the run {record.id}.")
    recipe = bundle.beside(path, RECIPE)
    if bundle.beside(path, image_scores_path(path).name) is None or recipe is None:
        raise ArtefactError(
            f"The bundle lacks the image scores or the recipe of run {record.id}; pack the run "
            "again with `rscl-bench submit pack`."
        )
    check_recipe(recipe, record)
    for code in code_files(record):
        file = bundle.components.get(code.digits)
        if file is None or file.name != code.file or not is_content(code, file.read_bytes()):
            raise ArtefactError(
                f"The bundle lacks the code {code.file} with the digest {code.digits}, which run "
                f"{record.id} used; pack the run again with --code."
            )


def _published_beside(records: dict[Path, RunRecord], published: Path) -> list[Filed]:
    """Return the published records of the scenarios and editions of a submission."""
    identities = [record.identity for record in records.values()]
    folders = {published / edition_folder(i.scenario.name, i.edition) for i in identities}
    present = [folder for folder in sorted(folders) if folder.is_dir()]
    return [Filed(path, read_record(path)) for path in find_records(present).records]


def _check_new(path: Path, record: RunRecord, others: Sequence[Filed], published: Path) -> None:
    """Refuse what is published already, and another result of a published run."""
    known = next((item for item in others if item.record.id == record.id), None)
    if known is not None:
        same = known.path.read_bytes() == path.read_bytes()
        what = "is published already in" if same else "has another result, which is published in"
        raise ArtefactError(f"The run {record.id} {what} {known.path}; submit runs of your own.")
    target = published_path(record, published)
    if target.exists():
        raise ArtefactError(f"{target} exists and holds another run; it is never replaced.")


def _check_archives(record: RunRecord, others: Sequence[Filed]) -> None:
    """Refuse a run on other archives, or on another scenario of the same name and version."""
    for item in others:
        own, other = record.identity, item.record.identity
        if (own.scenario.version, record.format) != (other.scenario.version, item.record.format):
            continue
        if own.scenario.digest != other.scenario.digest:
            raise ArtefactError(
                f"The run {record.id} is of another scenario than {item.path}: name and version "
                "are equal, and the field 'identity.scenario.digest' is not; run the scenario of "
                "the table."
            )
        for name in sorted({*own.data, *other.data}):
            if own.data.get(name) != other.data.get(name):
                raise ArtefactError(
                    f"The run {record.id} was made from other archives than {item.path}: the "
                    f"field 'identity.data.{name}' is {own.data.get(name)}, and the table's is "
                    f"{other.data.get(name)}; run on the archives of the table; the card of "
                    "the scenario names their sources."
                )


def _differences(
    bundle: Bundle, records: dict[Path, RunRecord], published: Path
) -> list[TableDifference]:
    """Return what every table of the submission would show otherwise."""
    folders = {published_path(record, published).parent for record in records.values()}
    present = [folder for folder in sorted(folders) if _records_in(folder)]
    before = {board.key: board for board in boards_of(present).values()} if present else {}
    ids = {record.id for record in records.values()}
    after = boards_of([*present, bundle.folder / "runs"], ids)
    tables = []
    for folder, board in after.items():
        own = {row_key(r) for r in records.values() if r.id in {i.record.id for i in board.loaded}}
        if own:
            tables.append(difference(folder, before.get(board.key), board, own))
    return tables


def _records_in(folder: Path) -> list[Path]:
    """Return the records of a folder that may be absent."""
    return find_records([folder]).records if folder.is_dir() else []
