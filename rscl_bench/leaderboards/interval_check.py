"""Checks that stored intervals over test images lie around the scores of the records."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from rscl_bench.errors import ArtefactError
from rscl_bench.results.schema import RunRecord

if TYPE_CHECKING:
    from rscl_bench.leaderboards.image_intervals import Contrast, Intervals

_KINDS = ("micro", "macro")
# Average precision of a resample tends to be higher than that of the sample, so that an interval
# may lie beside the score, but never by more than its own width.
_WIDTHS = 1.0
_ROUNDING = 1e-9


def check_intervals(
    stored: "Mapping[Contrast, Intervals]", records: Mapping[str, RunRecord]
) -> None:
    """Refuse stored intervals that are not those of the records' scores.

    Args:
        stored: Intervals that were not computed again from image scores.
        records: Records by digest of their image scores.

    Raises:
        ArtefactError: If an interval lies away from the recorded mean or difference. The message
            names a record, the probe and the score.
    """
    for contrast, intervals in stored.items():
        for kind, interval in zip(_KINDS, intervals, strict=True):
            if interval is None:
                continue
            value = _recorded(contrast, contrast.of, kind, records)
            if contrast.minus and value is not None:
                other = _recorded(contrast, contrast.minus, kind, records)
                value = None if other is None else value - other
            room = _WIDTHS * (interval.high - interval.low) + _ROUNDING
            if value is None or not interval.low - room <= value <= interval.high + room:
                raise ArtefactError(
                    f"The stored interval over test images of {kind}-mAP of probe "
                    f"'{contrast.probe}', with the run {records[contrast.of[0]].id}, is "
                    f"{interval.low:.6g} to {interval.high:.6g}, and the records give "
                    f"{'no score' if value is None else format(value, '.6g')}; restore "
                    "image-intervals.jsonl, or remove it and build beside the image scores."
                )


def _recorded(
    contrast: "Contrast", digests: Sequence[str], kind: str, records: Mapping[str, RunRecord]
) -> float | None:
    """Return the mean of the records' test scores; None if one is undefined."""
    values = []
    for digest in digests:
        record = records[digest]
        row = record.pixel_statistics if contrast.after is None else record.scores[contrast.after]
        score = row.get(contrast.probe)
        value = getattr(score.test, kind) if score is not None else None
        if value is None:
            return None
        values.append(value)
    return fmean(values)
