"""Submit runs to a published table, and check what others submit."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from rscl_bench.api.arguments import as_data_root, output_folder, record_paths
from rscl_bench.errors import ArtefactError
from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    from rscl_bench.results.publishing import Published
    from rscl_bench.submissions.bundle import Bundle
    from rscl_bench.submissions.checking import Checked
    from rscl_bench.submissions.packing import Packed
    from rscl_bench.submissions.reprobing import Reprobed


def pack_submission(
    records: "str | Path | Iterable[str | Path]",
    out: str | Path,
    *,
    code: Iterable[str | Path] = (),
    encoders: bool = False,
) -> "Packed":
    """Bundle finished runs into one file: records, image scores, recipes, and code by digest.

    Args:
        records: Folders of runs, or their records.
        out: The file to write.
        code: Files of the components that the runs used by path.
        encoders: Whether to bundle the encoders too, so that others can probe them again.

    Returns:
        Path, SHA-256 and content of the file.

    Raises:
        ArtefactError: If a record is refused, or a file is missing or not the one of the run.
    """
    from rscl_bench.results.files import find_records
    from rscl_bench.submissions.packing import pack_runs

    files = [user_path(path, "The file of code") for path in code]
    found = find_records(record_paths(records)).records
    return pack_runs(found, output_folder(out), files, encoders)


def check_submission(
    file: str | Path,
    against: str | Path,
    *,
    reprobe: bool = False,
    scenario: str | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
) -> "tuple[Checked, dict[Path, Reprobed]]":
    """Check a submission: recompute its scores, and compare it with the published records.

    Args:
        file: The file that `pack_submission` wrote.
        against: Folder of published records.
        reprobe: Whether to probe the encoders again, from the archives at hand.
        scenario: Scenario to probe with; None for the one of this package with the record's name.
        data_root: Folder of real archives; None for ``RSCL_DATA_ROOT``, or sketches without it.
        device: Device that probes.

    Returns:
        What was found, and the encoders that were probed again by path of their record.

    Raises:
        ArtefactError: If the submission is refused; the message says why.
    """
    from rscl_bench.submissions.bundle import opened_bundle
    from rscl_bench.submissions.checking import check_bundle

    with opened_bundle(user_path(file, "The submission")) as bundle:
        checked = check_bundle(bundle, user_path(against, "The folder of records"))
        again = _reprobed(bundle, checked, scenario, data_root, device) if reprobe else {}
    return checked, again


def add_submission(
    file: str | Path,
    into: str | Path,
    *,
    by: str = "the maintainers",
    reprobe: bool = False,
    scenario: str | None = None,
    data_root: str | Path | None = None,
    device: str = "auto",
) -> "list[Published]":
    """Check a submission as `check_submission` does, and add its runs to the published records.

    Args:
        file: The file that `pack_submission` wrote.
        into: Folder of published records.
        by: Who sets the marks.
        reprobe: As in `check_submission`. The runs are then marked *reproduced*, if this machine is
            another than the one of the record.
        scenario: As in `check_submission`.
        data_root: As in `check_submission`.
        device: As in `check_submission`.

    Returns:
        The published records with their marks.

    Raises:
        ArtefactError: If the submission is refused; nothing is written then.
    """
    from rscl_bench.submissions.adding import add_runs
    from rscl_bench.submissions.bundle import opened_bundle
    from rscl_bench.submissions.checking import check_bundle

    published = output_folder(into)
    with opened_bundle(user_path(file, "The submission")) as bundle:
        checked = check_bundle(bundle, published)
        again = _reprobed(bundle, checked, scenario, data_root, device) if reprobe else {}
        return add_runs(bundle, checked, published, by, again)


def _reprobed(
    bundle: "Bundle",
    checked: "Checked",
    scenario: str | None,
    data_root: str | Path | None,
    device: str,
) -> "dict[Path, Reprobed]":
    """Probe all encoders of a bundle again.

    Raises:
        ArtefactError: If the bundle has no encoder, or as in `rscl_bench.submissions.reprobing`.
    """
    from rscl_bench.progress import SilentReporter
    from rscl_bench.submissions.bundle import ENCODER
    from rscl_bench.submissions.reprobing import reprobe, scenario_of
    from rscl_bench.tiles.source import find_archives

    again = {}
    for path, record in checked.records.items():
        encoder = bundle.beside(path, ENCODER)
        if encoder is None:
            raise ArtefactError(
                f"The bundle lacks the encoder of run {record.id}; ask for one that was packed "
                "with --encoders."
            )
        declared = scenario_of(record, scenario)
        root = as_data_root(data_root) if record.identity.edition == "real" else None
        archives = find_archives(declared, root, "stop", SilentReporter())
        again[path] = reprobe(record, encoder, declared, archives, device)
    return again
