"""Intervals over test images: from the scores of images, or as stored when those were at hand.

Scores of images are too large to publish with a leaderboard. The intervals that need them are
stored beside the tables, each with the digests of the image scores that it is from, so that whoever
has the records alone builds the same tables. An interval of other image scores than the records'
is never used. One JSON object per line: the settings with the runs, then the intervals.
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
    """A mean over runs of a probe's test score, or the difference of two such means.

    Attributes:
        probe: Name.
        after: Number of tasks trained before the probing; None for pixel statistics.
        of: Digest of the image scores of each run.
        minus: The same of the runs that are subtracted.
    """

    probe: str
    after: int | None
    of: tuple[str, ...]
    minus: tuple[str, ...] = ()


#: Of micro-mAP and of macro-mAP; None where undefined.
Intervals = tuple[Interval | None, Interval | None]


def image_intervals(
    contrasts: Sequence[Contrast],
    loaded: Sequence[LoadedRecord],
    stored: Mapping[Contrast, Intervals],
) -> dict[Contrast, Intervals]:
    """Return the intervals that are known.

    Args:
        contrasts: What is asked for.
        loaded: The records of one leaderboard.
        stored: What was known before; used where image scores are not beside their records.

    Raises:
        ArtefactError: If a file of image scores is not its record's, or two are of other labels.
    """
    files = _files(loaded)
    known = {contrast: stored[contrast] for contrast in contrasts if contrast in stored}
    for probe in sorted({contrast.probe for contrast in contrasts}):
        asked = [c for c in contrasts if c.probe == probe and files.keys() >= {*c.of, *c.minus}]
        if asked:
            known.update(zip(asked, _computed(probe, asked, files), strict=True))
    # In the order of asking, whichever were stored: the same records give the same bytes.
    return {contrast: known[contrast] for contrast in contrasts if contrast in known}


def _files(loaded: Sequence[LoadedRecord]) -> dict[str, ImageScores]:
    """Return the image scores that are at hand, by digest.

    Raises:
        ArtefactError: If two were scored against other labels.
    """
    files: dict[str, ImageScores] = {}
    first: tuple[LoadedRecord, ImageScores] | None = None
    for item in loaded:
        images = read_image_scores(item.path, item.record)
        if images is None:
            continue
        files[item.record.image_scores_digest] = images
        first = first or (item, images)
        for probe, roles in images.labels.items():
            if not np.array_equal(roles["test"], first[1].labels[probe]["test"]):
                raise ArtefactError(
                    f"The image scores beside {first[0].path} and {item.path} have other labels of "
                    f"probe '{probe}', so their images cannot be paired; run one of them again."
                )
    return files


def _computed(
    probe: str, contrasts: Sequence[Contrast], files: Mapping[str, ImageScores]
) -> list[Intervals]:
    used = {(digest, c.after): None for c in contrasts for digest in (*c.of, *c.minus)}
    columns = {place: column for column, place in enumerate(used)}
    weights = np.zeros((len(contrasts), len(columns)))
    for row, contrast in enumerate(contrasts):
        for side, sign in ((contrast.of, 1.0), (contrast.minus, -1.0)):
            for digest in side:
                weights[row, columns[digest, contrast.after]] += sign / len(side)
    scores = [_test_scores(files[digest], after, probe) for digest, after in columns]
    labels = next(iter(files.values())).labels[probe]["test"]
    return bootstrap_interval(labels, scores, weights)


def _test_scores(images: ImageScores, after: int | None, probe: str) -> NDArray[np.float64]:
    row = images.pixel_statistics if after is None else images.scores[after]
    return row[probe]["test"]


def intervals_text(known: Mapping[Contrast, Intervals], loaded: Sequence[LoadedRecord]) -> str:
    """Return what `read_intervals` reads: the same bytes for the same intervals."""
    used = {digest for contrast in known for digest in (*contrast.of, *contrast.minus)}
    all_runs = {(item.record.image_scores_digest, item.record.id) for item in loaded}
    runs = sorted(run for run in all_runs if run[0] in used)
    place = {digest: number for number, (digest, _) in enumerate(runs)}
    lines: list[dict[str, Any]] = [
        {**_SETTINGS, "runs": [{"id": run, "image_scores_digest": d} for d, run in runs]}
    ]
    for contrast, (micro, macro) in known.items():
        line = {
            "probe": contrast.probe,
            "after": contrast.after,
            "of": [place[digest] for digest in contrast.of],
            "minus": [place[digest] for digest in contrast.minus],
            "micro": micro,
            "macro": macro,
        }
        lines.append(line)
    return "".join(json.dumps(line) + "\n" for line in lines)


def read_intervals(path: Path) -> dict[Contrast, Intervals]:
    """Return the stored intervals; none if there is no file, or it was made with other settings.

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
    of, minus = (tuple(runs[place] for place in line[side]) for side in ("of", "minus"))
    return Contrast(line["probe"], line["after"], of, minus)


def _ends(pair: list[float] | None) -> Interval | None:
    return None if pair is None else Interval(*pair)
