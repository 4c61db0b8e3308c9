"""Computes intervals over test images, or takes them from earlier tables.

Records may come without image scores. The intervals are therefore stored beside the tables
(`rscl_bench.leaderboards.stored_intervals`), and the records alone give the same tables.
Each stored interval has the digests of the image scores that the interval was computed from. A
stored interval is used only if these digests are those of the records.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.interval_check import check_intervals
from rscl_bench.leaderboards.keys import LoadedRecord
from rscl_bench.leaderboards.statistics import Interval, bootstrap_interval
from rscl_bench.results.image_scores import ImageScores
from rscl_bench.results.packed_scores import known_scores


class Contrast(NamedTuple):
    """A quantity with an interval: a mean test score over runs, or the difference of two means.

    Attributes:
        probe: Name of the probe.
        after: Number of tasks trained before the probing; None for pixel statistics.
        of: Digests of the image scores of the runs in the mean.
        minus: Digests of the image scores of the runs in the subtracted mean; empty for a mean.
    """

    probe: str
    after: int | None
    of: tuple[str, ...]
    minus: tuple[str, ...] = ()

    @property
    def runs(self) -> frozenset[str]:
        """Digests of the image scores of all runs."""
        return frozenset((*self.of, *self.minus))


#: Interval of micro-mAP and interval of macro-mAP; an undefined interval is None.
Intervals = tuple[Interval | None, Interval | None]


def image_intervals(
    contrasts: Sequence[Contrast],
    loaded: Sequence[LoadedRecord],
    stored: Mapping[Contrast, Intervals],
) -> dict[Contrast, Intervals]:
    """Return the known intervals, by contrast.

    An interval is known if all its runs have image scores beside their records, or if the interval
    is stored.

    Args:
        contrasts: Contrasts of all wanted intervals.
        loaded: Records of one leaderboard.
        stored: Stored intervals, used for contrasts without image scores.

    Raises:
        ArtefactError: If a file of image scores does not belong to its record, two files have
            different labels, or a stored interval is not of the records' scores.
    """
    images = _image_scores(loaded)
    known = {contrast: stored[contrast] for contrast in contrasts if contrast in stored}
    taken = {c: known[c] for c in known if not images.keys() >= c.runs}
    check_intervals(taken, {item.record.image_scores_digest: item.record for item in loaded})
    for probe in sorted({contrast.probe for contrast in contrasts}):
        computable = [c for c in contrasts if c.probe == probe and images.keys() >= c.runs]
        if computable:
            known.update(zip(computable, _computed(probe, computable, images), strict=True))
    # The order does not depend on which intervals were stored: equal records give equal bytes.
    return {contrast: known[contrast] for contrast in contrasts if contrast in known}


def _image_scores(loaded: Sequence[LoadedRecord]) -> dict[str, ImageScores]:
    """Return the image scores beside the records, by digest.

    Raises:
        ArtefactError: If two files of image scores have different labels.
    """
    by_digest: dict[str, ImageScores] = {}
    first: tuple[LoadedRecord, ImageScores] | None = None
    for item in loaded:
        images = known_scores(item.path, item.record)
        if images is None:
            continue
        by_digest[item.record.image_scores_digest] = images
        first = first or (item, images)
        for probe, roles in images.labels.items():
            if not np.array_equal(roles["test"], first[1].labels[probe]["test"]):
                raise ArtefactError(
                    f"The image scores beside {first[0].path} and {item.path} have different "
                    f"labels of probe '{probe}', so their images cannot be paired; run one of "
                    "them again."
                )
    return by_digest


def _computed(
    probe: str, contrasts: Sequence[Contrast], images: Mapping[str, ImageScores]
) -> list[Intervals]:
    """Return the intervals of contrasts of one probe; all runs have image scores."""
    probings = dict.fromkeys((digest, c.after) for c in contrasts for digest in (*c.of, *c.minus))
    columns = {probing: column for column, probing in enumerate(probings)}
    weights = np.zeros((len(contrasts), len(columns)))
    for row, contrast in enumerate(contrasts):
        for side, sign in ((contrast.of, 1.0), (contrast.minus, -1.0)):
            for digest in side:
                weights[row, columns[digest, contrast.after]] += sign / len(side)
    scores = [_test_scores(images[digest], after, probe) for digest, after in columns]
    labels = next(iter(images.values())).labels[probe]["test"]
    return bootstrap_interval(labels, scores, weights)


def _test_scores(images: ImageScores, after: int | None, probe: str) -> NDArray[np.float64]:
    row = images.pixel_statistics if after is None else images.scores[after]
    return row[probe]["test"]
