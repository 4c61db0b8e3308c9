"""The files of a run that are shared: encoder, record and image scores, checked by digest."""

from pathlib import Path
from typing import NamedTuple

from rscl_bench.errors import ArtefactError
from rscl_bench.models.encoder_file import FILE, EncoderDescription, describes_encoder
from rscl_bench.results.image_scores import ImageScores, image_scores_path, read_image_scores
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.tiles.store import file_digest

RECORD = "record.json"


class RunFiles(NamedTuple):
    """A run's files, which belong together.

    Attributes:
        record: The record.
        description: Description in the encoder's file.
        images: Image scores; None if they are not there.
        paths: The files: encoder, record, and image scores where they are there.
    """

    record: RunRecord
    description: EncoderDescription
    images: ImageScores | None
    paths: tuple[Path, ...]


def read_run_files(folder: Path) -> RunFiles:
    """Read the files of a run, and check that they belong together.

    Args:
        folder: The run's folder, with ``record.json`` and ``encoder.safetensors``.

    Raises:
        ArtefactError: If a file is missing or damaged, or a digest is not the record's.
    """
    encoder, path = folder / FILE, folder / RECORD
    record = read_record(path)
    if record.encoder_digest is None:
        raise ArtefactError(
            f"{path} is of a version that recorded no digest of the encoder; run it again."
        )
    if not encoder.is_file():
        raise ArtefactError(f"There is no encoder beside {path}; it was {encoder}.")
    description = describes_encoder(encoder)
    if (
        description is None
        or description.run != record.id
        or file_digest(encoder) != record.encoder_digest
    ):
        raise ArtefactError(
            f"{encoder} is not the encoder of {path}: its SHA-256 or its run's id is not the "
            "record's; restore the run's own file."
        )
    images = read_image_scores(path, record)
    scores = () if images is None else (image_scores_path(path),)
    return RunFiles(record, description, images, (encoder, path, *scores))
