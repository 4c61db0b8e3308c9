"""Computes the values of a leaderboard: values by run, then means over seeds.

`records_frame` gives a row per score. `run_values` turns these scores into a row per run and a
column per column of the leaderboard. `over_seeds` turns the runs into the rows of the leaderboard.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats

from rscl_bench.leaderboards.columns import (
    DOMAIN_METRICS,
    KEYS,
    KINDS,
    OUTSIDE_METRICS,
    PARTS,
    domain_column,
    outside_column,
    score_column,
)
from rscl_bench.leaderboards.frame import records_frame
from rscl_bench.leaderboards.keys import LoadedRecord
from rscl_bench.leaderboards.references import reference_values
from rscl_bench.leaderboards.rows import Row
from rscl_bench.leaderboards.statistics import LEVEL
from rscl_bench.results.schema import RunRecord


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
    """Return the scores of all runs: a row per method, precision and seed.

    Args:
        rows: Rows of the leaderboard.
        loaded: Records of one group.

    Returns:
        A frame with the columns `score_columns`, as fractions. An undefined value is NaN.

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
        (*row.key, seed): dict(_continual_values(run.record))
        for row in rows
        if row.reference != "lower"
        for seed, run in row.runs.items()
    }
    references = dict(reference_values(rows, loaded))
    values = pd.concat([_by_run(references), scores.join(_by_run(trained))])
    return values.reindex(columns=score_columns(layout))


def over_seeds(values: pd.DataFrame) -> pd.DataFrame:
    """Return mean, standard deviation and t interval over seeds.

    A column becomes ``<column>.mean``, ``<column>.std`` (with n − 1) and ``<column>.ci95`` (half
    the width of the 95 % t interval of the mean). If one seed lacks a value, the row's value is
    NaN: a mean over fewer seeds than the row states would mislead.

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
        f"{name}.{part}": frame[name] for name in values.columns for part, frame in parts.items()
    }
    return pd.DataFrame(columns)


def _by_run(values: Mapping[tuple[str, str, int], Mapping[str, float | None]]) -> pd.DataFrame:
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
