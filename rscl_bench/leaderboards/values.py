"""Computes the values of a leaderboard: values by run, then means over seeds.

`records_frame` gives a row per score. `run_values` turns these scores into a row per run and a
column per column of the leaderboard. `over_seeds` turns the runs into the rows of the leaderboard.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.collect import LoadedRecord, RowKey
from rscl_bench.leaderboards.frame import records_frame
from rscl_bench.leaderboards.rows import Row, encoder_key
from rscl_bench.leaderboards.statistics import LEVEL
from rscl_bench.results.schema import ProbeScore, RunRecord

KINDS = ("micro", "macro")
DOMAIN_METRICS = (
    "final_average",
    "average_incremental",
    "backward_transfer",
    "forgetting",
    "forward_transfer",
)
OUTSIDE_METRICS = ("final", "mean_over_tasks", "gain_over_random")
COSTS = (
    "training_hours",
    "images_per_second",
    "trainable_parameters",
    "gflops_with_gradient",
    "gflops_without_gradient",
)
PARTS = ("mean", "std", "ci95")
#: Names of the index levels of a leaderboard.
KEYS = list(RowKey._fields)

# Largest difference between scores of one untrained encoder on different devices or with different
# numbers of threads: rounding sometimes swaps two neighbours, which changes a score by 0.1
# points. Scores of two initialisations differ far more.
_SAME_ENCODER = 1e-3


def score_column(task: int, probe: str, kind: str) -> str:
    """Return the column of a score after a task; tasks are counted from 1."""
    return f"T{task}.{probe}.{kind}"


def domain_column(metric: str, kind: str) -> str:
    """Return the column of a continual metric over the probes of the tasks' domains."""
    return f"continual.{metric}.{kind}"


def outside_column(probe: str, metric: str, kind: str) -> str:
    """Return the column of a continual metric of one outside probe."""
    return f"{probe}.{metric}.{kind}"


def score_columns(layout: RunRecord) -> list[str]:
    """Return the columns of scores, then of continual metrics, in the order of the table."""
    scores = [
        score_column(task, probe.name, kind)
        for task in range(1, len(layout.tasks) + 1)
        for probe in layout.probes
        for kind in KINDS
    ]
    return [*scores, *dict(_continual_values(layout))]


def run_values(rows: Sequence[Row], loaded: Sequence[LoadedRecord]) -> pd.DataFrame:
    """Return the values of all runs: a row per method, precision, device and seed.

    Args:
        rows: Rows of the leaderboard.
        loaded: Records of one group.

    Returns:
        A frame with the columns `score_columns`, as fractions, and `COSTS`. An undefined value is
        NaN.

    Raises:
        ArtefactError: If the scores of untrained encoders of one seed disagree, or the scores of
            pixel statistics.
    """
    layout = loaded[0].record
    index = [*KEYS, "seed"]
    frame = records_frame(item.record for item in loaded)
    tested = frame[(frame["split"] == "test") & (frame["task"] > 0)]
    columns = [
        score_column(task, probe, score.removesuffix("_map"))
        for task, probe, score in zip(tested["task"], tested["probe"], tested["score"], strict=True)
    ]
    scores = tested.assign(column=columns).pivot(index=index, columns="column", values="value")
    trained = {
        (*row.key, seed): {**dict(_continual_values(run.record)), **_costs(run.record)}
        for row in rows
        if row.reference != "lower"
        for seed, run in row.runs.items()
    }
    references = dict(_reference_values(rows, loaded))
    values = pd.concat([_by_run(references), scores.join(_by_run(trained))])
    return values.reindex(columns=[*score_columns(layout), *COSTS])


def over_seeds(values: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation and t interval over seeds.

    A column of scores becomes ``<column>.mean``, ``<column>.std`` (with n − 1) and
    ``<column>.ci95`` (half the width of the 95 % t interval of the mean). A column of costs becomes
    the mean. If one seed lacks a value, the row's value is NaN: a mean over fewer seeds than the
    row states would mislead.

    Args:
        values: Values by run, from `run_values`.
    """
    grouped = values.groupby(level=KEYS, sort=False)
    seeds = grouped.size()
    complete = grouped.count().eq(seeds, axis="index")
    mean, std = grouped.mean().where(complete), grouped.std().where(complete)
    quantile = pd.Series(stats.t.ppf((1 + LEVEL) / 2, seeds - 1), index=seeds.index)
    ci95 = std.mul(quantile / np.sqrt(seeds), axis="index")
    parts = dict(zip(PARTS, (mean, std, ci95), strict=True))
    columns = {
        f"{name}.{part}": frame[name]
        for name in values.columns.drop(list(COSTS))
        for part, frame in parts.items()
    }
    return pd.DataFrame({**columns, **{name: mean[name] for name in COSTS}})


def _by_run(values: Mapping[tuple[str, str, str, int], Mapping[str, float | None]]) -> pd.DataFrame:
    index = pd.MultiIndex.from_tuples(values, names=[*KEYS, "seed"])
    return pd.DataFrame(list(values.values()), index=index, dtype="float64")


def _continual_values(record: RunRecord) -> Iterator[tuple[str, float | None]]:
    """Yield column and value of each continual metric; domain metrics need a domain probe."""
    by_kind = {"micro": record.continual.micro, "macro": record.continual.macro}
    if any(probe.task is not None for probe in record.probes):
        for metric in DOMAIN_METRICS:
            for kind in KINDS:
                yield domain_column(metric, kind), getattr(by_kind[kind], metric)
    for probe in [probe.name for probe in record.probes if probe.task is None]:
        for metric in OUTSIDE_METRICS:
            for kind in KINDS:
                value = getattr(by_kind[kind].outside[probe], metric)
                yield outside_column(probe, metric, kind), value


def _costs(record: RunRecord) -> dict[str, float | None]:
    trained = [task for task in record.tasks if task.images_per_second is not None]
    images = math.fsum((task.images_per_second or 0.0) * task.train_seconds for task in trained)
    flops = record.flops
    return {
        "training_hours": math.fsum(task.train_seconds for task in record.tasks) / 3600,
        "images_per_second": images / math.fsum(task.train_seconds for task in trained),
        "trainable_parameters": record.parameters.trainable,
        "gflops_with_gradient": None if flops is None else flops.total_with_gradient() / 1e9,
        "gflops_without_gradient": None if flops is None else flops.total_without_gradient() / 1e9,
    }


def _reference_values(
    rows: Sequence[Row], loaded: Sequence[LoadedRecord]
) -> Iterator[tuple[tuple[str, str, str, int], dict[str, float]]]:
    """Yield the scores of lower references by row and seed.

    The score is equal after all tasks. A seed counts once, even if several methods ran it.
    """
    layout = loaded[0].record
    for row in rows:
        if row.reference != "lower":
            continue
        for seed in row.runs:
            if row.after is None:
                scores = _agreed(loaded, "pixel_statistics", lambda r: r.pixel_statistics)
            else:
                same_encoder = [
                    item
                    for item in loaded
                    if (encoder_key(item.record), item.seed) == (row.key, seed)
                ]
                scores = _agreed(same_encoder, "scores.0", lambda r: r.scores[0])
            yield (
                (*row.key, seed),
                {
                    score_column(task, probe, kind): score
                    for task in range(1, len(layout.tasks) + 1)
                    for (probe, kind), score in scores.items()
                },
            )


def _agreed(
    loaded: Sequence[LoadedRecord],
    field: str,
    scores: Callable[[RunRecord], Mapping[str, ProbeScore]],
) -> dict[tuple[str, str], float]:
    """Check that scores agree up to rounding, and return their means by probe and kind.

    Raises:
        ArtefactError: If two records differ. The message names both files and the field.
    """
    means = {}
    for probe, kind in product([probe.name for probe in loaded[0].record.probes], KINDS):
        maps = [scores(item.record).get(probe) for item in loaded]
        values = np.array([m and getattr(m.test, kind) for m in maps], dtype=np.float64)
        comparable = np.nan_to_num(values, nan=-1.0)  # an undefined score disagrees with any score
        low, high = int(comparable.argmin()), int(comparable.argmax())
        if comparable[high] - comparable[low] > _SAME_ENCODER:
            raise ArtefactError(
                f"{loaded[low].path} and {loaded[high].path} must agree in the field "
                f"'{field}.{probe}.test.{kind}', which no training touches, and do not; run both "
                "again with one version."
            )
        means[probe, kind] = float(values.mean())
    return means
