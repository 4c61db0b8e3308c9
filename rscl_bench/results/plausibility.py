"""Checks that the numbers of a run record can be true.

Each bound is far from what any run reaches: it finds values that were made up, and no others.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from rscl_bench.registry import BUILTIN
from rscl_bench.results.schema import RunRecord

#: The first day of this project. No run started before.
PROJECT_BEGAN = datetime(2026, 11, 21, tzinfo=UTC)
#: A day on which this version existed: a computer's clock that shows an earlier day is wrong.
VERSION_EXISTED = datetime(2026, 11, 28, tzinfo=UTC)
#: Largest difference between two clocks.
CLOCKS = timedelta(days=1)
#: Least seconds of an optimiser step. A step runs some hundred operations, each of which takes at
#: least a microsecond to start.
LEAST_STEP = 1e-5
#: Most operations per second of one device: ten times the rate of the fastest accelerators of 2026
#: in their narrowest number type.
MOST_OPERATIONS = 1e17
#: Largest value of `CollapseMetrics.std`: the squared deviations of unit vectors sum to at most 1.
LARGEST_STD = 1.0 + 1e-6


def implausible(record: RunRecord) -> Iterator[str]:
    """Yield one clause per number of a record that cannot be true; every clause names a field."""
    yield from _date_problems(record)
    yield from _speed_problems(record)
    yield from _spread_problems(record)
    if _is_builtin(record):
        yield from _size_problems(record)


def _date_problems(record: RunRecord) -> Iterator[str]:
    started, seconds = record.provenance.started, record.seconds
    earlier = 0.0 if record.parent is None else record.parent.seconds
    latest = max(datetime.now(UTC), VERSION_EXISTED) + CLOCKS
    if started < PROJECT_BEGAN:
        yield f"field 'provenance.started' is {started:%Y-%m-%d}, before this project existed"
    elif started > latest:
        yield f"field 'provenance.started' is {started:%Y-%m-%d}, in the future"
    elif seconds.total - earlier - (seconds.packing or 0.0) > (latest - started).total_seconds():
        yield (
            f"field 'seconds.total' is {seconds.total:.6g}, and fewer seconds have passed since "
            "the field 'provenance.started'"
        )


def _speed_problems(record: RunRecord) -> Iterator[str]:
    flops = record.flops
    operations = 0 if flops is None else flops.with_gradient + flops.without_gradient
    for index, task in enumerate(record.tasks):
        if task.images_per_second is None:
            continue
        field = f"field 'tasks.{index}"
        if task.train_seconds < task.steps * LEAST_STEP:
            yield (
                f"{field}.train_seconds' is {task.train_seconds:.3g}, and no device takes "
                f"{task.steps} steps in less than {task.steps * LEAST_STEP:.3g} seconds"
            )
        elif operations * task.images_per_second > MOST_OPERATIONS:
            yield (
                f"{field}.images_per_second' times the field 'flops' is more than "
                f"{MOST_OPERATIONS:.0e} operations per second"
            )


def _spread_problems(record: RunRecord) -> Iterator[str]:
    tiles = {probe.name: probe.test_tiles for probe in record.probes}
    for index, row in enumerate(record.spread or ()):
        for probe, spread in row.items():
            field = f"field 'spread.{index}.{probe}"
            if spread.std > LARGEST_STD:
                yield f"{field}.std' is {spread.std:.6g}, and at most 1 is possible"
            if spread.effective_rank > tiles.get(probe, 1) + 1e-6:
                yield (
                    f"{field}.effective_rank' is {spread.effective_rank:.6g}, and features of "
                    f"{tiles.get(probe, 1)} tiles have at most that rank"
                )


def _is_builtin(record: RunRecord) -> bool:
    """Return whether objective, strategies and backbone are this package's, without plugins.

    What other code trains, and on how many tiles, is not known.
    """
    identity = record.identity
    backbone = identity.protocol.get("backbone")
    named = (
        identity.objective in BUILTIN["objectives"],
        isinstance(backbone, dict) and backbone.get("name") in BUILTIN["backbones"],
        all(name in BUILTIN["strategies"] for name in identity.strategies),
    )
    return all(named) and not identity.plugins


def _size_problems(record: RunRecord) -> Iterator[str]:
    encoder, trainable = record.parameters.encoder, record.parameters.trainable
    # Some objectives keep position embeddings and the patch embedding as they are, and no more.
    if trainable < encoder / 2:
        yield f"field 'parameters.trainable' is {trainable}, and the encoder alone has {encoder}"
    # Each weight takes part in a multiplication and an addition in the forward pass, and in as many
    # in the backward pass. Only embeddings and biases do not, and these are the smaller part.
    flops = record.flops
    if flops is not None and flops.with_gradient < encoder:
        yield (
            f"field 'flops.with_gradient' is {flops.with_gradient}, fewer than the parameters in "
            f"the field 'parameters.encoder', {encoder}"
        )
    yield from _step_problems(record)


def _step_problems(record: RunRecord) -> Iterator[str]:
    identity = record.identity
    try:
        batch = identity.setting("training", "batch_size")
        buffer = identity.setting("buffer_size")
    except ValueError:
        return
    everything = sum(task.tiles for task in record.tasks) + buffer
    for index, task in enumerate(record.tasks):
        # A strategy may add the buffer's images, or train on all tasks at once.
        tiles = everything if identity.strategies else task.tiles
        most = task.epochs * (tiles // batch)
        if task.steps > most:
            yield (
                f"field 'tasks.{index}.steps' is {task.steps}, and {task.epochs} epochs of at most "
                f"{tiles} tiles in batches of {batch} are {most}"
            )
