"""Judges run records: recomputes their scores from image scores, and compares records."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from rscl_bench.errors import ArtefactError
from rscl_bench.results.agreement import Filed, disagreements
from rscl_bench.results.components import check_components
from rscl_bench.results.differences import ROUNDING, first_difference
from rscl_bench.results.image_scores import ImageScores, image_scores_path, probe_scores
from rscl_bench.results.marks import read_mark
from rscl_bench.results.packed_scores import known_scores, packed_scores_path
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord


class Verdict(NamedTuple):
    """The verdict on one record.

    Attributes:
        state: ``valid``: all scores are those computed from the image scores beside the record,
            whole or packed. ``refused``: the record is damaged, contradicts itself, its image
            scores or another record, or cannot be true. ``not recomputable``: nothing was found,
            but there are no image scores beside the record.
        reason: One sentence; empty for a valid record.
        notes: What could not be checked, one clause each.
    """

    state: Literal["valid", "refused", "not recomputable"]
    reason: str = ""
    notes: tuple[str, ...] = ()


def verdicts(paths: Iterable[Path]) -> dict[Path, Verdict]:
    """Return the verdict on each record; a bad record does not keep the others from being judged.

    Args:
        paths: Record files.

    Raises:
        ArtefactError: If there is no record file.
    """
    judged: dict[Path, Verdict] = {}
    read: list[Filed] = []
    for path in paths:
        try:
            record = read_record(path)
        except ArtefactError as error:
            judged[path] = Verdict("refused", str(error))
        else:
            judged[path] = _alone(path, record)
            read.append(Filed(path, record))
    if not judged:
        raise ArtefactError("There is no run record to validate; check the path.")
    for disagreement in disagreements(read):
        for path in disagreement.paths:
            if judged[path].state != "refused":
                judged[path] = Verdict("refused", disagreement.sentence)
    return judged


def _alone(path: Path, record: RunRecord) -> Verdict:
    """Return the verdict on a record without regard to other records."""
    components = check_components(record)
    notes = tuple(
        f"{name} is not registered here, so its parameters are not checked"
        for name in components.unknown
    )
    if components.problems:
        return Verdict("refused", _sentence(path, components.problems), notes)
    try:
        images = known_scores(path, record)
        mark = read_mark(path)
    except ArtefactError as error:
        return Verdict("refused", str(error), notes)
    if images is None and mark is not None:
        unfounded = (
            f"The mark '{mark.mark}' of {path} does not hold: there are no image scores to compute "
            "its scores from; publish them, or remove the mark."
        )
        return Verdict("refused", unfounded, notes)
    if images is None:
        missing = (
            f"there are no image scores in {image_scores_path(path)} and none in "
            f"{packed_scores_path(path).name}"
        )
        return Verdict("not recomputable", missing, notes)
    field = _first_wrong_score(record, images)
    if field:
        reason = f"The field '{field}' of {path} does not follow from the scores of its images."
        return Verdict("refused", reason, notes)
    return Verdict("valid", notes=notes)


def _sentence(path: Path, problems: Sequence[str]) -> str:
    return f"{path}: {problems[0]}; restore the file from where it was published, or run again."


def _first_wrong_score(record: RunRecord, images: ImageScores) -> str | None:
    score_rows = {
        f"scores.{t}": (
            {probe: score for probe, score in row.items() if record.is_probed(probe, t)},
            images.scores[t],
        )
        for t, row in enumerate(record.scores)
    }
    score_rows["pixel_statistics"] = record.pixel_statistics, images.pixel_statistics
    for field, (row, scores) in score_rows.items():
        recorded = {probe: score.model_dump() for probe, score in row.items()}
        computed = probe_scores(images.labels, scores)
        expected = {probe: score.model_dump() for probe, score in computed.items()}
        different = first_difference(field, recorded, expected, ROUNDING)
        if different:
            return different
    return None
