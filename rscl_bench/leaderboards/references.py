"""Computes the scores of lower references, which no training touches."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.columns import KINDS, score_column
from rscl_bench.leaderboards.keys import LoadedRecord
from rscl_bench.leaderboards.machines import Machine, machine_of
from rscl_bench.leaderboards.pixels import Pixels, pixels_of
from rscl_bench.leaderboards.rows import Row, encoder_key
from rscl_bench.results.schema import ProbeScore, RunRecord

# Largest difference between scores of one untrained encoder on one kind of machine: rounding
# sometimes swaps two neighbours, which changes a score by 0.1 points. Scores of two
# initialisations differ far more.
_SAME_ENCODER = 1e-3


def reference_values(
    rows: Sequence[Row], loaded: Sequence[LoadedRecord]
) -> Iterator[tuple[tuple[str, str, int], dict[str, float]]]:
    """Yield the scores of lower references by row and seed.

    The score is equal after all tasks. A seed counts once, even if several methods ran it.
    """
    layout = loaded[0].record
    for row in rows:
        if row.reference != "lower":
            continue
        for seed in row.runs:
            scores = _agreed(*_measured(row, seed, loaded))
            yield (
                (*row.key, seed),
                {
                    score_column(task, probe, kind): score
                    for task in range(1, len(layout.tasks) + 1)
                    for (probe, kind), score in scores.items()
                },
            )


class ReferenceSpread(NamedTuple):
    """Largest differences between scores that no training touches, as fractions.

    Attributes:
        pixel_statistics: Largest difference between two records.
        untrained: Largest difference between two records of one precision and seed.
    """

    pixel_statistics: float
    untrained: float


def reference_spread(rows: Sequence[Row], loaded: Sequence[LoadedRecord]) -> ReferenceSpread:
    """Return how far decoders and machines change the scores of the lower references.

    Args:
        rows: Rows of the leaderboard.
        loaded: Records of one group.
    """
    largest = {True: 0.0, False: 0.0}
    for row in rows:
        if row.reference != "lower":
            continue
        for seed in row.runs:
            _, scores, measured = _measured(row, seed, loaded)
            for probe, kind in product([p.name for p in loaded[0].record.probes], KINDS):
                values = [_score(scores(item.record), probe, kind) for item in measured]
                known = [value for value in values if not np.isnan(value)]
                if known:
                    untrained = row.after is not None
                    largest[untrained] = max(largest[untrained], max(known) - min(known))
    return ReferenceSpread(pixel_statistics=largest[False], untrained=largest[True])


_Scores = Callable[[RunRecord], Mapping[str, ProbeScore]]


def _measured(
    row: Row, seed: int, loaded: Sequence[LoadedRecord]
) -> tuple[str, _Scores, list[LoadedRecord]]:
    """Return the field of a lower reference, its scores, and the records that measured them."""
    if row.after is None:
        return "pixel_statistics", lambda record: record.pixel_statistics, list(loaded)
    own = [i for i in loaded if (encoder_key(i.record), i.seed) == (row.key, seed)]
    return "scores.0", lambda record: record.scores[0], own


def _score(scores: Mapping[str, ProbeScore], probe: str, kind: str) -> float:
    found = scores.get(probe)
    value = None if found is None else getattr(found.test, kind)
    return float("nan") if value is None else float(value)


def _agreed(
    field: str, scores: _Scores, measured: Sequence[LoadedRecord]
) -> dict[tuple[str, str], float]:
    """Check that scores agree up to rounding, and return their means by probe and kind.

    Records of other machines or with otherwise decoded pixels need not agree.

    Raises:
        ArtefactError: If two records differ. The message names both files and the field.
    """
    alike: dict[tuple[Machine, Pixels], list[LoadedRecord]] = {}
    for item in measured:
        alike.setdefault((machine_of(item.record), pixels_of(item.record)), []).append(item)
    means = {}
    for probe, kind in product([probe.name for probe in measured[0].record.probes], KINDS):
        for members in alike.values():
            _check_agreed(f"{field}.{probe}.test.{kind}", scores, members, probe, kind)
        values = [_score(scores(item.record), probe, kind) for item in measured]
        means[probe, kind] = float(np.mean(values))
    return means


def _check_agreed(
    field: str, scores: _Scores, loaded: Sequence[LoadedRecord], probe: str, kind: str
) -> None:
    values = np.array([_score(scores(item.record), probe, kind) for item in loaded])
    comparable = np.nan_to_num(values, nan=-1.0)  # an undefined score disagrees with any score
    low, high = int(comparable.argmin()), int(comparable.argmax())
    if comparable[high] - comparable[low] > _SAME_ENCODER:
        raise ArtefactError(
            f"{loaded[low].path} and {loaded[high].path} must agree in the field '{field}', which "
            "no training touches, and do not; run both again with one version."
        )
