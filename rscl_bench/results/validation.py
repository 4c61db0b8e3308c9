"""Recomputes the scores of run records from the stored image scores."""

from collections.abc import Iterable
from pathlib import Path

from rscl_bench.errors import ArtefactError
from rscl_bench.results.differences import ROUNDING, first_difference
from rscl_bench.results.image_scores import ImageScores, probe_scores, read_image_scores
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord


def refusals(paths: Iterable[Path]) -> dict[Path, str | None]:
    """Return the reason for refusing each record; None for a valid record.

    A record is valid if all its scores are those computed from the stored image scores.

    Args:
        paths: Record files.
    """
    return {path: _refusal(path) for path in paths}


def _refusal(path: Path) -> str | None:
    try:
        record = read_record(path)
        images = read_image_scores(path, record)
    except ArtefactError as error:
        return str(error)
    if images is None:
        return f"{path} has no scores of images beside it; restore the run's record.safetensors."
    field = _first_wrong_score(record, images)
    if field:
        return f"The field '{field}' of {path} does not follow from the scores of its images."
    return None


def _first_wrong_score(record: RunRecord, images: ImageScores) -> str | None:
    score_rows = {f"scores.{t}": (row, images.scores[t]) for t, row in enumerate(record.scores)}
    score_rows["pixel_statistics"] = record.pixel_statistics, images.pixel_statistics
    for field, (row, scores) in score_rows.items():
        recorded = {probe: score.model_dump() for probe, score in row.items()}
        computed = probe_scores(images.labels, scores)
        expected = {probe: score.model_dump() for probe, score in computed.items()}
        different = first_difference(field, recorded, expected, ROUNDING)
        if different:
            return different
    return None
