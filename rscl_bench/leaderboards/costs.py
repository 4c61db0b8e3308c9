"""Computes the costs of training: time, speed, memory, parameters and operations.

Times and what depends on them are compared within one device only.
"""

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from rscl_bench.leaderboards.rows import Row
from rscl_bench.results.schema import RunRecord

#: Costs that depend on the device.
DEVICE_COSTS = ("training_hours", "images_per_second", "flop_utilisation", "peak_memory_gib")
#: Costs that do not depend on the device.
ROW_COSTS = ("trainable_parameters", "gflops_with_gradient", "gflops_without_gradient")
COSTS = (*DEVICE_COSTS, *ROW_COSTS)
COLUMNS = ("method", "precision", "device", "seeds", *COSTS)


def costs_by_device(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the mean costs over seeds: a line per trained row and device.

    Args:
        rows: Rows of one leaderboard.

    Returns:
        A frame with the columns `COLUMNS`. A mean is NaN if one run lacks the value.
    """
    lines = []
    for row in rows:
        for device in row.devices:
            records = [run.record for run in row.runs.values()]
            own = [record for record in records if record.provenance.device == device]
            lines.append((*row.key, device, len(own), *_means(own)))
    frame = pd.DataFrame(lines, columns=COLUMNS)
    return frame.astype({"seeds": "int64", **dict.fromkeys(COSTS, "float64")})


def costs_by_row(rows: Sequence[Row]) -> pd.DataFrame:
    """Return the mean costs over seeds: a line per row of the leaderboard, in its order.

    Args:
        rows: Rows of one leaderboard.

    Returns:
        A frame with the columns `COSTS`. `DEVICE_COSTS` are NaN if the seeds of a row ran on
        several devices. All costs of lower references are NaN.
    """
    lines = []
    for row in rows:
        means = dict.fromkeys(COSTS, math.nan)
        if row.devices:
            records = [run.record for run in row.runs.values()]
            means = dict(zip(COSTS, _means(records), strict=True))
        if len(row.devices) > 1:
            means |= dict.fromkeys(DEVICE_COSTS, math.nan)
        lines.append(means)
    return pd.DataFrame(lines, columns=COSTS).astype("float64")


def training_hours(record: RunRecord) -> float:
    """Return the hours of training of one run."""
    return math.fsum(task.train_seconds for task in record.tasks) / 3600


def training_operations(row: Row) -> float | None:
    """Return the operations of the whole training of a row, mean over seeds.

    The operations of an image, with those of strategies from the second task on, times the images
    of all steps.

    Args:
        row: A trained row.

    Returns:
        None if one run has no count, or has strategies whose operations were not counted.
    """
    totals = []
    for record in (run.record for run in row.runs.values()):
        flops = record.flops
        if flops is None or (flops.strategies_with_gradient is None and record.identity.strategies):
            return None
        batch = record.identity.setting("training", "batch_size")
        totals.append(
            sum(flops.of_task(t) * task.steps for t, task in enumerate(record.tasks)) * batch
        )
    return math.fsum(totals) / len(totals)


def _means(records: Iterable[RunRecord]) -> list[float]:
    values = np.array([list(_costs(record)) for record in records], dtype=np.float64)
    return [float(mean) for mean in values.mean(axis=0)]


def _costs(record: RunRecord) -> Iterator[float | None]:
    """Yield the costs of one run, in the order of `COSTS`."""
    trained = [task for task in record.tasks if task.images_per_second is not None]
    seconds = math.fsum(task.train_seconds for task in trained)
    yield training_hours(record)
    yield math.fsum((t.images_per_second or 0.0) * t.train_seconds for t in trained) / seconds
    used = [(task.flop_utilisation, task.train_seconds) for task in trained]
    known = [utilisation * time for utilisation, time in used if utilisation is not None]
    yield math.fsum(known) / seconds if len(known) == len(used) else None
    memory = [task.peak_memory_bytes for task in record.tasks]
    peaks = [peak for peak in memory if peak is not None]
    yield max(peaks) / 2**30 if len(peaks) == len(memory) else None
    flops = record.flops
    yield record.parameters.trainable
    yield None if flops is None else flops.total_with_gradient() / 1e9
    yield None if flops is None else flops.total_without_gradient() / 1e9
