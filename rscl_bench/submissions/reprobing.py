"""Probes the encoder of a submitted run again, from the archives at hand."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch

from rscl_bench import registry
from rscl_bench.declarations import known_scenario, load_scenario
from rscl_bench.encoder_bands import encoder_bands
from rscl_bench.engine.device import Device, open_device, processor_name
from rscl_bench.engine.prepare import scenario_content
from rscl_bench.engine.probing import OpenProbe, Prober, open_probe
from rscl_bench.errors import ArtefactError, SpecError
from rscl_bench.leaderboards.machines import Machine, machine_name, machine_of
from rscl_bench.models.encoder_file import read_encoder
from rscl_bench.progress import silent
from rscl_bench.results.image_scores import probe_scores
from rscl_bench.results.schema import ProbeScore, RunRecord, probe_key
from rscl_bench.spec import Protocol, Scenario, identity
from rscl_bench.tiles.source import ArchiveSource

#: Largest difference of a score between two machines, as a fraction: rounding swaps neighbours.
TOLERANCE = 0.005
_KINDS = ("micro", "macro")


class Reprobed(NamedTuple):
    """An encoder that was probed again.

    Attributes:
        largest: Largest difference between a score and the record's, as a fraction.
        machine: The machine that probed, for readers.
        elsewhere: Whether it is another machine than the one of the record.
    """

    largest: float
    machine: str
    elsewhere: bool


def scenario_of(record: RunRecord, given: str | None = None) -> Scenario:
    """Return the scenario of a record, as it is declared here.

    Args:
        record: The record.
        given: Name or path of the scenario; None for the scenario of this package with the
            record's name.

    Raises:
        SpecError: If it is not declared here, or its tasks and probes are others.
    """
    named = record.identity.scenario
    scenario = load_scenario(given) if given else known_scenario(named.name)
    if scenario is None or identity(scenario_content(scenario)) != named.digest:
        raise SpecError(
            f"The scenario {named.name} of run {record.id} is not declared here with the digest "
            f"{named.digest}, so its encoder cannot be probed; name its file with "
            "--scenario."
        )
    return scenario


def reprobe(
    record: RunRecord, encoder: Path, scenario: Scenario, archives: ArchiveSource, device: str
) -> Reprobed:
    """Probe an encoder and compare its scores with the last ones of a record.

    The probes, tiles, precision and seeds are those of the run. Pixel statistics are compared too.

    Args:
        record: The record.
        encoder: File of the run's encoder.
        scenario: The scenario of the record.
        archives: Archives of the probes.
        device: Device name, as in `rscl_bench.engine.device.open_device`.

    Raises:
        ArtefactError: If the file is not the encoder of the record, the archives are others, or a
            score differs by more than `TOLERANCE`.
        SpecError: If the backbone or a probe is not registered here: no code of a record is run.
    """
    with encoder.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != record.encoder_digest:
        raise ArtefactError(f"The encoder of run {record.id} has another digest than its record.")
    protocol = Protocol.model_validate(record.identity.protocol)
    if protocol.backbone.name not in registry.entries("backbones"):
        raise SpecError(
            f"The backbone '{protocol.backbone.name}' is not registered here, so the encoder of "
            f"run {record.id} cannot be probed."
        )
    opened_device = open_device(device, record.identity.precision)
    probes = _opened(record, scenario, protocol, archives)
    network = read_encoder(encoder)[0].to(opened_device.torch).eval()
    prober = Prober(probes, network, protocol, opened_device)
    prober.probe()
    images = prober.image_scores(record.id)
    largest = max(
        _largest(record, recorded, probe_scores(images.labels, scores))
        for recorded, scores in (
            (record.scores[-1], images.scores[-1]),
            (record.pixel_statistics, images.pixel_statistics),
        )
    )
    machine = _machine(opened_device)
    return Reprobed(largest, machine_name(machine), _is_other(machine, machine_of(record)))


def _opened(
    record: RunRecord, scenario: Scenario, protocol: Protocol, archives: ArchiveSource
) -> list[OpenProbe]:
    """Open the probes whose scores the last row of a record has, and check their archives."""
    bands = encoder_bands(scenario, protocol)
    last = len(record.scores) - 1
    wanted = [probe for probe in scenario.probes if record.is_probed(probe.name, last)]
    for probe in wanted:
        if probe.probe not in registry.entries("probes"):
            raise SpecError(f"The probe '{probe.probe}' of run {record.id} is not registered here.")
    opened = [open_probe(p, protocol, archives, silent, bands) for p in wanted]
    for probed in opened:
        for role, store in probed.stores.items():
            key = probe_key(probed.spec.name, role)
            if store.source_digest != record.identity.data.get(key):
                raise ArtefactError(
                    f"The archives at hand are not those of run {record.id}: the digest of "
                    f"{key} is {store.source_digest}, and the record's is "
                    f"{record.identity.data.get(key)}."
                )
    return opened


def _largest(
    record: RunRecord, recorded: Mapping[str, ProbeScore], probed: Mapping[str, ProbeScore]
) -> float:
    """Return the largest difference between recorded and probed scores.

    Raises:
        ArtefactError: If it is larger than `TOLERANCE`; the message names the probe.
    """
    largest = 0.0
    for name, scores in probed.items():
        for role in ("test", "val"):
            own, other = getattr(scores, role), getattr(recorded[name], role)
            for kind in _KINDS if own is not None and other is not None else ():
                first, second = getattr(own, kind), getattr(other, kind)
                apart = 0.0 if first is None or second is None else abs(first - second)
                if apart > TOLERANCE or (first is None) != (second is None):
                    raise ArtefactError(
                        f"The encoder of run {record.id} does not give its scores: {kind}-mAP of "
                        f"probe '{name}' ({role}) is {first} here and {second} in the record."
                    )
                largest = max(largest, apart)
    return largest


def _machine(device: Device) -> Machine:
    return Machine(device.name, processor_name(), torch.backends.cpu.get_cpu_capability())


def _is_other(here: Machine, there: Machine) -> bool:
    return any(a is not None and b is not None and a != b for a, b in zip(here, there, strict=True))
