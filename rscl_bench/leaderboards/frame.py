"""Puts the scores of run records into one table in long form."""

from collections.abc import Iterable, Iterator

import pandas as pd

from rscl_bench.leaderboards.keys import row_key
from rscl_bench.results.schema import INITIAL_ENCODER, RANDOM_ENCODER, RunRecord

COLUMNS = (
    "scenario",
    "edition",
    "protocol",
    "code",
    "method",
    "precision",
    "device",
    "seed",
    "run_id",
    "task",
    "task_name",
    "probe",
    "split",
    "score",
    "value",
)


def records_frame(records: Iterable[RunRecord]) -> pd.DataFrame:
    """Return the scores of run records: a row per run, task, probe, split and score.

    Returns:
        A frame with the columns:

        - ``scenario``, ``edition``, ``protocol``, ``device``: names, as in the record;
        - ``code``: version of the package that made the record;
        - ``method``: name of the recipe, with overrides of the method in brackets;
        - ``precision``: ``fp32`` or ``bf16``;
        - ``seed``, ``run_id``: seed and id of the run;
        - ``task``: number of tasks trained before the probing; 0 for the untrained encoder;
        - ``task_name``: name of the last of these tasks; ``random-encoder`` for task 0;
        - ``probe``, ``split``: name of the probe; ``test`` or ``val``;
        - ``score``: ``micro_map`` or ``macro_map``;
        - ``value``: score as a fraction; NaN if undefined.
    """
    frame = pd.DataFrame([row for record in records for row in _rows(record)], columns=COLUMNS)
    return frame.astype({"seed": "int64", "task": "int64", "value": "float64"})


def _rows(record: RunRecord) -> Iterator[tuple[str | int | float | None, ...]]:
    identity, device = record.identity, record.provenance.device
    names = (identity.scenario.name, identity.edition, identity.protocol_name, identity.code)
    run = (*names, *row_key(record), device, identity.seed, record.id)
    before = RANDOM_ENCODER if record.identity.init is None else INITIAL_ENCODER
    task_names = [before, *(task.name for task in record.tasks)]
    for task, (task_name, row) in enumerate(zip(task_names, record.scores, strict=True)):
        for probe, score in row.items():
            for split, maps in (("test", score.test), ("val", score.val)):
                if maps is not None:
                    where = (*run, task, task_name, probe, split)
                    yield (*where, "micro_map", maps.micro)
                    yield (*where, "macro_map", maps.macro)
