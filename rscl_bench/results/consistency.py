"""Checks that the fields of a run record agree with each other.

The checks are cheap. They find slips of the program and edits by hand.
"""

import math
import re
from collections.abc import Iterator, Mapping

from rscl_bench.probes.metrics import MultilabelMAP
from rscl_bench.results.continual import continual_of
from rscl_bench.results.differences import ROUNDING, first_difference
from rscl_bench.results.schema import (
    ProbeScore,
    RunRecord,
    probe_key,
    task_key,
)

# Relative difference that rounding makes between a sum of times and its parts.
_ROUNDED_TIME = 1e-6


def problems(record: RunRecord) -> Iterator[str]:
    """Yield one clause per contradiction in a record; every clause names a field."""
    try:
        expected = record.identity.run_id()
    except ValueError:  # the type `JsonValue` accepts NaN
        yield "field 'identity' holds a number that is not finite"
        return
    if record.id != expected:
        yield f"field 'id' is {record.id}, and the field 'identity' hashes to {expected}"
    yield from _name_problems(record)
    yield from _digest_problems(record)
    yield from _software_problems(record)
    yield from _training_problems(record)
    yield from _time_problems(record)
    yield from _score_problems(record)
    yield from _origin_problems(record)
    probes = {probe.name for probe in record.probes}
    for number, row in enumerate(record.spread or ()):
        if set(row) != {probe for probe in probes if record.is_probed(probe, number)}:
            yield "field 'spread' has other probes than the field 'probes'"
    if record.spread is not None and len(record.spread) != len(record.scores):
        yield f"field 'spread' has {len(record.spread)} rows and 'scores' {len(record.scores)}"


def _origin_problems(record: RunRecord) -> Iterator[str]:
    """Yield contradictions in what a run began with: initial weights, or the state of a parent."""
    for field in ("init", "parent"):
        if (getattr(record.identity, field) is None) != (getattr(record, field) is None):
            yield f"field '{field}' does not fit the field 'identity.{field}'"
    parent = record.identity.parent
    if parent is not None and parent.tasks >= len(record.tasks):
        yield f"field 'identity.parent.tasks' is {parent.tasks} of {len(record.tasks)} tasks"
    if record.parent is not None and record.seconds.total < record.parent.seconds:
        yield "field 'seconds.total' is less than the field 'parent.seconds'"
    if record.unprobed and parent is None:
        yield "field 'unprobed' needs the field 'identity.parent'"
    for probe, rows in record.unprobed.items():
        if probe not in {known.name for known in record.probes}:
            yield f"field 'unprobed.{probe}' is of no probe in the field 'probes'"
            return
        if list(rows) != sorted({row for row in rows if row < len(record.scores)}):
            yield f"field 'unprobed.{probe}' does not list rows of the field 'scores' in order"
            return
        for row in rows:
            score = record.scores[row][probe]
            for values in (score.test, score.val):
                if values is not None and values.macro_labels:
                    yield f"field 'scores.{row}.{probe}' has a score, and 'unprobed' lists the row"


def _name_problems(record: RunRecord) -> Iterator[str]:
    tasks = [task.name for task in record.tasks]
    probes = [probe.name for probe in record.probes]
    for field, names in (("tasks", tasks), ("probes", probes)):
        if len(set(names)) != len(names):
            yield f"field '{field}' lists the same name twice"
    for index, probe in enumerate(record.probes):
        if probe.task is not None and probe.task not in tasks:
            yield f"field 'probes.{index}.task' is '{probe.task}', not one of the field 'tasks'"
    for task in sorted(set(record.task_encoders) - set(tasks)):
        yield f"field 'task_encoders.{task}' is of no task in the field 'tasks'"
    digests = {task_key(task) for task in tasks}
    digests |= {probe_key(probe, role) for probe in probes for role in ("train", "test")}
    for key in sorted(digests - set(record.identity.data)):
        yield f"field 'identity.data' lacks the digest of '{key}'"
    digests |= {probe_key(probe, "val") for probe in probes}
    for key in sorted(set(record.identity.data) - digests):
        yield f"field 'identity.data' has a digest of '{key}', no split of a task or probe"


def _digest_problems(record: RunRecord) -> Iterator[str]:
    expected = set() if record.format == 2 else set(record.identity.data)
    if set(record.pixel_digests) != expected:
        yield (
            f"field 'pixel_digests' has the keys {sorted(record.pixel_digests)}, and format "
            f"{record.format} with this field 'identity.data' needs {sorted(expected)}"
        )


def _software_problems(record: RunRecord) -> Iterator[str]:
    identity, provenance = record.identity, record.provenance
    if provenance.rscl_bench != identity.code:
        yield (
            f"field 'provenance.rscl_bench' is {provenance.rscl_bench}, and the field "
            f"'identity.code' {identity.code}"
        )
    asked = identity.protocol.get("precision", "auto")
    if asked not in ("auto", identity.precision):
        yield (
            f"field 'identity.precision' is {identity.precision}, and the field "
            f"'identity.protocol.precision' is {asked}"
        )
    named = re.search(r"\((\d+) threads?\)$", provenance.device)
    if named and int(named[1]) != provenance.threads:
        yield (
            f"field 'provenance.device' names {named[1]} threads, and the field "
            f"'provenance.threads' is {provenance.threads}"
        )


def _training_problems(record: RunRecord) -> Iterator[str]:
    try:
        batch = record.identity.setting("training", "batch_size")
        epochs = record.identity.setting("training", "epochs")
        record.identity.setting("seeds")
    except ValueError as error:
        yield str(error)
        return
    if not any(task.steps for task in record.tasks):
        yield "field 'tasks' has no training step"
    for index, task in enumerate(record.tasks):
        field = f"field 'tasks.{index}"
        if task.epochs != epochs:
            yield f"{field}.epochs' is {task.epochs}, and the protocol asks for {epochs}"
        for name in ("images_per_second", "final_loss"):
            if (getattr(task, name) is None) != (task.steps == 0):
                yield f"{field}.{name}' does not fit {task.steps} steps"
                return
        if (task.waited_seconds or 0.0) > task.train_seconds:
            yield f"{field}.waited_seconds' is more than its 'train_seconds'"
        yield from _utilisation_problems(record, index)
        # A strategy may take more steps than the task's own tiles give, as replay does. Joint
        # training trains on the tiles of all tasks in the first task, and takes no later step.
        least_steps = task.epochs * (task.tiles // batch)
        if 0 < task.steps < least_steps:
            yield (
                f"{field}.steps' is {task.steps}, but {task.epochs} epochs of {task.tiles} tiles "
                f"in batches of {batch} are {least_steps}"
            )
        # The check compares products: a quotient would divide by a time of 0.
        images = task.train_seconds * (task.images_per_second or 0.0)
        if not math.isclose(images, task.steps * batch, rel_tol=0.01):
            yield (
                f"{field}.images_per_second' times {task.train_seconds:.6g} s is {images:.6g} "
                f"images, but {task.steps} steps of {batch} are {task.steps * batch}"
            )


def _time_problems(record: RunRecord) -> Iterator[str]:
    seconds = record.seconds
    trained = math.fsum(task.train_seconds for task in record.tasks)
    if not math.isclose(seconds.training, trained, rel_tol=_ROUNDED_TIME):
        yield (
            f"field 'seconds.training' is {seconds.training:.6g}, and the fields "
            f"'tasks.train_seconds' sum to {trained:.6g}"
        )
    parts = math.fsum([seconds.training, seconds.probing, seconds.packing or 0.0])
    if seconds.total < parts * (1 - _ROUNDED_TIME):
        yield f"field 'seconds.total' is {seconds.total:.6g}, less than its parts with {parts:.6g}"


def _utilisation_problems(record: RunRecord, index: int) -> Iterator[str]:
    field, task = f"field 'tasks.{index}", record.tasks[index]
    if task.flop_utilisation is None:
        return
    flops, available = record.flops, record.provenance.matrix_flops
    if flops is None or available is None or task.images_per_second is None:
        yield (
            f"{field}.flop_utilisation' needs the fields 'flops', 'provenance.matrix_flops' and "
            "'images_per_second'"
        )
        return
    used = flops.of_task(index) * task.images_per_second
    if not math.isclose(task.flop_utilisation, used / available, rel_tol=0.01):
        yield f"{field}.flop_utilisation' is not {used:.4g} over {available:.4g} a second"


def _score_problems(record: RunRecord) -> Iterator[str]:
    rows = len(record.tasks) + 1
    if len(record.scores) != rows:
        yield f"field 'scores' has {len(record.scores)} rows, expected {rows}: untrained, each task"
        return
    score_rows = {f"scores.{t}": row for t, row in enumerate(record.scores)}
    score_rows["pixel_statistics"] = record.pixel_statistics
    labels = {probe.name: probe.labels for probe in record.probes}
    for field, row in score_rows.items():
        # A probe that trains the encoder has no score of pixel statistics.
        absent = set(labels) - set(row) if field != "pixel_statistics" else set()
        if absent or set(row) - set(labels):
            yield (
                f"field '{field}' has scores of the probes {sorted(row)}, expected {sorted(labels)}"
            )
            return
        for name, score in row.items():
            yield from _map_problems(f"{field}.{name}.test", score.test, labels[name])
            yield from _map_problems(f"{field}.{name}.val", score.val, labels[name])
    yield from _split_problems(record, score_rows)
    expected = continual_of(record.tasks, record.probes, record.scores).model_dump()
    different = first_difference("continual", record.continual.model_dump(), expected, ROUNDING)
    if different:
        yield f"field '{different}' does not follow from the field 'scores'"


def _split_problems(
    record: RunRecord, score_rows: Mapping[str, Mapping[str, ProbeScore]]
) -> Iterator[str]:
    """Yield rows whose splits or labels differ: no training changes the labels of a split.

    An undefined score has no labels, and is compared with none.
    """
    for probe in record.probes:
        has_val = probe_key(probe.name, "val") in record.identity.data
        counted: dict[str, int] = {}
        for field, row in score_rows.items():
            score = row.get(probe.name)
            if score is None:  # pixel statistics of a probe that trains the encoder
                continue
            where = f"field '{field}.{probe.name}"
            if (score.val is not None) != has_val:
                yield f"{where}.val' does not fit the splits in the field 'identity.data'"
            for role, values in (("test", score.test), ("val", score.val)):
                labels = 0 if values is None else values.macro_labels
                if labels and counted.setdefault(role, labels) != labels:
                    yield f"{where}.{role}.macro_labels' is {labels}, before {counted[role]}"


def _map_problems(field: str, values: MultilabelMAP | None, labels: int) -> Iterator[str]:
    if values is None:
        return
    if values.macro_labels > labels:
        yield f"field '{field}.macro_labels' is {values.macro_labels} of {labels} labels"
    for kind in ("micro", "macro"):
        if (getattr(values, kind) is None) != (values.macro_labels == 0):
            yield f"field '{field}.{kind}' does not fit {values.macro_labels} labels with positives"
