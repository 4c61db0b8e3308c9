"""The parts of a run's record, and the line that is printed after each task."""

import platform
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

import torch
from pydantic import ValidationError
from torch import nn

import rscl_bench
from rscl_bench import registry
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.encoder_bands import encoder_bands, selected, sensor_bands
from rscl_bench.engine.device import Device, processor_name
from rscl_bench.engine.prepare import PreparedRun
from rscl_bench.engine.probing import OpenProbe, Prober
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.errors import SpecError, shown
from rscl_bench.models.encoder_file import (
    POOLING,
    EncoderArchive,
    EncoderDescription,
    EncoderInput,
    EncoderTask,
)
from rscl_bench.results.record import package_versions
from rscl_bench.results.schema import (
    FlopsRecord,
    Parameters,
    ProbeRecord,
    Provenance,
    TaskRecord,
)
from rscl_bench.results.text import one_line
from rscl_bench.spec import BandMode, Component, ProbedEncoder, Task, first_problem
from rscl_bench.views.view import PixelScaling


class KnownParts(NamedTuple):
    """The parts of a record that are known before the first step.

    Attributes:
        probes: Descriptions of the probes.
        flops: Operations per image; None if the objective has no counted operation.
        skipped: Paths of the images that were left out, by key of ``identity.data``.
        description: Description in the encoder's file.
    """

    probes: list[ProbeRecord]
    flops: FlopsRecord | None
    skipped: dict[str, tuple[str, ...]]
    description: EncoderDescription


def known_parts(
    prepared: PreparedRun, flops: FlopsRecord | None, started: datetime, probed: ProbedEncoder
) -> KnownParts:
    """Return the parts of a record that are known before the first step.

    Args:
        prepared: The run.
        flops: Operations per image of one step.
        started: UTC time of the start.
        probed: The encoder that is probed and kept.

    Raises:
        SpecError: If a record cannot hold a value.
    """
    stores = prepared.named_stores()
    try:
        provenance_of(prepared.device, started)
        return KnownParts(
            probes=_probe_records(prepared),
            flops=flops,
            skipped=_earlier_skipped(prepared)
            | {n: _printable(s.skipped) for n, s in stores.items() if s.skipped},
            description=describe_encoder(prepared, probed),
        )
    except ValidationError as error:
        raise SpecError(f"This run cannot be recorded: {shown(first_problem(error))}.") from error


def _probe_records(prepared: PreparedRun) -> list[ProbeRecord]:
    """Return the descriptions of the probes, in the order of the scenario."""
    known = {} if prepared.parent is None else {p.name: p for p in prepared.parent.record.probes}
    known |= {probe.spec.name: probe_record(probe) for probe in prepared.probes}
    return [known[probe.name] for probe in prepared.spec.scenario.probes]


def _earlier_skipped(prepared: PreparedRun) -> dict[str, tuple[str, ...]]:
    """Return the images that a continued run left out, of the data that both runs share."""
    if prepared.parent is None:
        return {}
    skipped = prepared.parent.record.skipped
    return {name: paths for name, paths in skipped.items() if name in prepared.identity.data}


def _printable(paths: Sequence[str]) -> tuple[str, ...]:
    """Return paths whose bytes are not UTF-8 with escapes, since a record is UTF-8."""
    return tuple(path.encode("utf-8", "backslashreplace").decode() for path in paths)


def provenance_of(device: Device, started: datetime) -> Provenance:
    """Return where, when and with which software a run is made."""
    return Provenance(
        rscl_bench=rscl_bench.__version__,
        started=started,
        device_type=device.torch.type,
        device=one_line(device.name),
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        platform=one_line(f"{platform.system()} {platform.machine()}"),
        versions=package_versions(),
        processor=processor_name(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
    )


def task_records(
    prepared: PreparedRun,
    trainer: SelfSupervisedTrainer,
    peaks: Sequence[int | None],
    flops: FlopsRecord | None,
    matrix_flops: float,
) -> list[TaskRecord]:
    """Return the record of every task of a run that has ended.

    Args:
        prepared: The run.
        trainer: The trainer after the last task.
        peaks: Peak memory of every task in bytes.
        flops: Operations per image of one step.
        matrix_flops: Operations per second of matrix products on the device.
    """
    training = prepared.spec.protocol.training
    # The rate of another process is not known here, so these tasks have no utilisation.
    earlier = [] if prepared.parent is None else prepared.parent.record.tasks
    records = [task.model_copy(update={"flop_utilisation": None}) for task in earlier]
    for task in range(len(records), len(prepared.stores)):
        declared = prepared.spec.scenario.tasks[task]
        steps, seconds = trainer.steps_taken[task], trainer.task_clock.train_seconds[task]
        rate = steps * training.batch_size / seconds if steps else None
        records.append(
            TaskRecord(
                name=declared.name,
                tiles=len(prepared.stores[task]),
                epochs=training.epochs,
                steps=steps,
                train_seconds=seconds,
                images_per_second=rate,
                final_loss=trainer.final_loss[task],
                peak_memory_bytes=peaks[task],
                waited_seconds=trainer.task_clock.waited_seconds[task],
                flop_utilisation=rate and flops and rate * flops.of_task(task) / matrix_flops,
            )
        )
    return records


def parameter_counts(trainer: SelfSupervisedTrainer) -> Parameters:
    """Return the number of parameters of the encoder, and of all that the run trained."""
    return Parameters(
        encoder=_count([trainer.model.encoder]),
        trainable=_count(trainer.trained_modules(), trained_only=True),
    )


def probe_record(probe: OpenProbe) -> ProbeRecord:
    """Return the description of a probe and of its test split."""
    tiles, labels = probe.labels["test"].shape
    return ProbeRecord(
        name=probe.spec.name,
        probe=registry.portable(probe.spec.probe),
        task=probe.spec.task,
        test_tiles=tiles,
        labels=labels,
    )


def describe_encoder(prepared: PreparedRun, probed: ProbedEncoder) -> EncoderDescription:
    """Return the origin of a run's encoder, and the input that the encoder was trained on."""
    spec, identity = prepared.spec, prepared.identity
    channels = encoder_bands(spec.scenario, spec.protocol)
    inputs = [
        _encoder_input(task, scaling, spec.protocol.bands)
        for task, scaling in zip(spec.scenario.tasks, prepared.scalings, strict=True)
    ]
    return EncoderDescription(
        rscl_bench=identity.code,
        run=identity.run_id(),
        scenario=identity.scenario.name,
        scenario_version=identity.scenario.version,
        edition=identity.edition,
        protocol=identity.protocol_name,
        method=spec.method.name,
        seed=identity.seed,
        backbone=Component.model_validate(
            registry.portable(spec.protocol.backbone.model_dump(mode="json"))
        ),
        probed=probed,
        probed_feature=spec.protocol.probed_feature,
        pooling=POOLING[spec.protocol.probed_feature],
        task=EncoderTask(name=inputs[-1].task, number=len(inputs), of=len(inputs)),
        image_size=spec.protocol.image_size,
        bands=inputs[-1].bands,
        band_mode=spec.protocol.bands,
        channels=None if channels is None else channels.bands,
        inputs=tuple(inputs),
    )


def _encoder_input(task: Task, scaling: PixelScaling, mode: BandMode | None) -> EncoderInput:
    adapter = adapter_class(task.dataset, task.options)
    spectrum = {band.name: band for band in sensor_bands(task)}
    bands = tuple(dict.fromkeys(selected(task.bands, mode)))  # each once
    return EncoderInput(
        task=task.name,
        bands=bands,
        unit=adapter.sensor.unit,
        scale=scaling.scale,
        mean=tuple(scaling.normalisation.mean.tolist())[: len(bands)],
        std=tuple(scaling.normalisation.std.tolist())[: len(bands)],
        places=None if scaling.channels is None else scaling.channels.places,
        dtype=adapter.sensor.dtype,
        spectrum=tuple(spectrum[name] for name in bands),
        archive=EncoderArchive(
            dataset=registry.portable(task.dataset),
            split=task.split,
            title=adapter.title,
            source=adapter.source,
            licence=adapter.licence,
            tile_size=task.tile_size,
            cut=task.cut,
        ),
    )


def task_line(prepared: PreparedRun, trainer: SelfSupervisedTrainer, prober: Prober) -> str:
    """Return one line on the task that was probed last: time, loss, scores and feature spread."""
    task = len(prober.rows) - 2  # row 0 is of the untrained encoder
    scores, spreads = [], []
    for probe, score in prober.scores()[-1].items():
        if probe in prepared.gone:
            continue
        micro = score.test.micro
        scores.append(f"{probe} micro-mAP {'undefined' if micro is None else f'{100 * micro:.2f}'}")
        spread = prober.spreads[-1][probe]
        spreads.append(f"(spread {spread.std:.2f}, effective rank {spread.effective_rank:.1f})")
    if len(set(spreads)) == 1:  # all probes have the same tiles
        results = f"{', '.join(scores)} {spreads[0]}"
    else:
        results = ", ".join(map(" ".join, zip(scores, spreads, strict=True)))
    name = prepared.spec.scenario.tasks[task].name
    loss, seconds = trainer.final_loss[task], trainer.task_clock.train_seconds[task]
    training = "no step" if loss is None else f"trained in {seconds:.1f} s, loss {loss:.4f}"
    return f"task {task + 1} {name}: {training}, {results}"


def _count(modules: Sequence[nn.Module], trained_only: bool = False) -> int:
    return sum(
        parameter.numel()
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad or not trained_only
    )
