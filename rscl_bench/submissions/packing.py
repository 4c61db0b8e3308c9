"""Packs finished runs into the file of a submission."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from rscl_bench.errors import ArtefactError
from rscl_bench.results.image_scores import image_scores_path
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.results.validation import verdicts
from rscl_bench.submissions.bundle import ENCODER, RECIPE, RECORD, SCORES, write_bundle
from rscl_bench.submissions.recipes import code_files, is_content, recipe_toml


class Packed(NamedTuple):
    """A bundle that was written.

    Attributes:
        path: The file.
        digest: Its SHA-256.
        files: Names in it, sorted.
    """

    path: Path
    digest: str
    files: list[str]


def pack_runs(
    records: Sequence[Path], out: Path, code: Iterable[Path] = (), encoders: bool = False
) -> Packed:
    """Bundle runs: record, image scores, recipe, files of code, and encoders if wanted.

    Args:
        records: Record files, each with its image scores beside it.
        out: The bundle.
        code: Files of the components that the runs used by path.
        encoders: Whether the bundle holds the encoders, so that others can probe them again.

    Raises:
        ArtefactError: If a record is refused, or a file is missing or has another digest than the
            record says; or if the bundle cannot be written.
    """
    for path, verdict in verdicts(records).items():
        if verdict.state == "refused":
            raise ArtefactError(verdict.reason)
        if not image_scores_path(path).is_file():
            raise ArtefactError(
                f"{image_scores_path(path)} is missing, and a submission needs the scores of the "
                "images; pack the folder that the run wrote."
            )
    files: dict[str, bytes] = {}
    given = {path: path.read_bytes() for path in code}
    for path in records:
        record = read_record(path)
        if f"runs/{record.id}/{RECORD}" in files:
            raise ArtefactError(f"The run {record.id} is given twice; pack it once.")
        files |= _files_of_run(path, record, encoders) | _code_of(record, given)
    write_bundle(files, out)
    return Packed(out, sha256(out.read_bytes()).hexdigest(), sorted(files))


def _files_of_run(path: Path, record: RunRecord, encoders: bool) -> dict[str, bytes]:
    folder = f"runs/{record.id}"
    files = {
        f"{folder}/{RECORD}": path.read_bytes(),
        f"{folder}/{SCORES}": image_scores_path(path).read_bytes(),
        f"{folder}/{RECIPE}": recipe_toml(record).encode(),
    }
    if encoders:
        encoder = path.with_name(ENCODER)
        content = encoder.read_bytes() if encoder.is_file() else b""
        if sha256(content).hexdigest() != record.encoder_digest:
            raise ArtefactError(
                f"{encoder} is missing, or is not the encoder of {path}; restore the run's own "
                "file, or pack without --encoders."
            )
        files[f"{folder}/{ENCODER}"] = content
    return files


def _code_of(record: RunRecord, given: Mapping[Path, bytes]) -> dict[str, bytes]:
    """Return the files of code of a run, by their name in the bundle.

    Raises:
        ArtefactError: If a file is not given, or was changed since the run.
    """
    files = {}
    for code in code_files(record):
        named = {path: content for path, content in given.items() if path.name == code.file}
        content = next((text for text in named.values() if is_content(code, text)), None)
        if content is None:
            problem = "was changed since" if named else "is not given for"
            raise ArtefactError(
                f"The code {code.file} {problem} the run {record.id}, whose record has the digest "
                f"{code.digits}; give that file with --code."
            )
        files[code.name] = content
    return files
