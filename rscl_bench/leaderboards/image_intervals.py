"""Computes, stores and reads intervals over test images.

Image scores are too large to publish with a leaderboard. The intervals are therefore stored beside
the tables, and the records alone give the same tables. Each stored interval has the digests of the
image scores that the interval was computed from. A stored interval is used only if these digests
are those of the records.

The file has one JSON object per line: first the settings and the runs, then the intervals.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.collect import LoadedRecord
from rscl_bench.leaderboards.statistics import LEVEL, RESAMPLES, Interval, bootstrap_interval
from rscl_bench.results.image_scores import ImageScores, read_image_scores

FILE = "image-intervals.jsonl"
_SETTINGS = {"level": LEVEL, "method": "percentile", "resamples": RESAMPLES}


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
        ArtefactError: If a file of image scores does not belong to its record, or two files have
            different labels.
    """
    images = _image_scores(loaded)
    known = {contrast: stored[contrast] for contrast in contrasts if contrast in stored}
    for probe in sorted({contrast.probe for contrast in contrasts}):
        computable = [
            c for c in contrasts if c.probe == probe and images.keys() >= {*c.of, *c.minus}
        ]
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
        images = read_image_scores(item.path, item.record)
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


def intervals_text(known: Mapping[Contrast, Intervals], loaded: Sequence[LoadedRecord]) -> str:
    """Return the content of the file that `read_intervals` reads."""
    used_digests = {digest for contrast in known for digest in (*contrast.of, *contrast.minus)}
    all_runs = {(item.record.image_scores_digest, item.record.id) for item in loaded}
    runs = sorted(run for run in all_runs if run[0] in used_digests)
    position = {digest: index for index, (digest, _) in enumerate(runs)}
    lines: list[dict[str, Any]] = [
        {**_SETTINGS, "runs": [{"id": run, "image_scores_digest": d} for d, run in runs]}
    ]
    for contrast, (micro, macro) in known.items():
        line = {
            "probe": contrast.probe,
            "after": contrast.after,
            "of": [position[digest] for digest in contrast.of],
            "minus": [position[digest] for digest in contrast.minus],
            "micro": micro,
            "macro": macro,
        }
        lines.append(line)
    return "".join(json.dumps(line) + "\n" for line in lines)


def read_intervals(path: Path) -> dict[Contrast, Intervals]:
    """Return the stored intervals by contrast.

    The result is empty if there is no file, or if the file was made with other settings.

    Raises:
        ArtefactError: If the file cannot be read or is damaged.
    """
    try:
        head, *lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if {name: head[name] for name in _SETTINGS} != _SETTINGS:
            return {}
        runs = [run["image_scores_digest"] for run in head["runs"]]
        return {
            _contrast(line, runs): (_ends(line["micro"]), _ends(line["macro"])) for line in lines
        }
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be read ({error.strerror or error}); mend its permissions."
        ) from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ArtefactError(
            f"{path} is damaged ({error!r}); restore it from where it was published, or remove it "
            "and build again beside the image scores."
        ) from error


def _contrast(line: dict[str, Any], runs: Sequence[str]) -> Contrast:
    of, minus = (tuple(runs[position] for position in line[side]) for side in ("of", "minus"))
    return Contrast(line["probe"], line["after"], of, minus)


def _ends(pair: list[float] | None) -> Interval | None:
    return None if pair is None else Interval(*pair)
