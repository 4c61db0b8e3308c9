"""Evaluates any encoder on the probes of a scenario, without a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rscl_bench import __version__, registry
from rscl_bench.encoder_bands import selected
from rscl_bench.encoders.encoder_scores import (
    EncoderScores,
    EncoderSource,
    ProbeResult,
    RoleImages,
)
from rscl_bench.engine.build import new_encoder
from rscl_bench.engine.device import Device, open_device
from rscl_bench.engine.initial import initial_weights
from rscl_bench.engine.prepare import scenario_content
from rscl_bench.engine.probing import OpenProbe, open_probe
from rscl_bench.engine.recording import probe_record
from rscl_bench.errors import ArtefactError, SpecError
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.encoder_file import (
    EncoderDescription,
    describes_encoder,
    read_encoder,
)
from rscl_bench.models.initial_weights import Adaptation, load_initial
from rscl_bench.models.timm_encoder import TimmEncoder
from rscl_bench.models.weights_file import digest_of
from rscl_bench.probes.encoding import FrozenEncoder
from rscl_bench.progress import Reporter
from rscl_bench.randomness import seeded
from rscl_bench.resolve import resolve_run
from rscl_bench.results.image_scores import probe_scores
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import ProbeScore, RunRecord, ScenarioName, SpreadRecord, probe_key
from rscl_bench.spec import (
    Component,
    Method,
    OnBadTile,
    Protocol,
    RunSpec,
    Scenario,
    identity,
    is_method_key,
)
from rscl_bench.tiles.source import find_archives

#: Fields of a protocol that a score depends on, besides the defaults of probes.
_SCORED_BY = ("image_size", "precision", "probed_feature", "bands", "views")


class EncoderToProbe(NamedTuple):
    """An encoder, and what is known of it.

    Attributes:
        encoder: The encoder.
        protocol: The protocol, with the image size and the band mode of the encoder.
        source: Where the encoder comes from.
        notes: What was adapted, and how the encoder's bands differ from those of the probes.
    """

    encoder: Encoder
    protocol: Protocol
    source: EncoderSource
    notes: tuple[str, ...]


def probing_spec(
    file: Path, scenario: Scenario, protocol: str | None, overrides: Mapping[str, Any]
) -> RunSpec:
    """Return the scenario and protocol whose probes evaluate a file.

    Without a protocol's name, an encoder of this package has the protocol of its run, if the
    scenario has it.

    Raises:
        SpecError: If protocol or overrides are not valid, or an override is of a method.
    """
    for key in overrides:
        if is_method_key(key):
            raise SpecError(f"--set {key} is of a method, and a probe trains none; leave it out.")
    if protocol is None:
        description = describes_encoder(file)
        if description is not None and description.protocol in scenario.protocols:
            protocol = description.protocol
    none = Method(name="none", title="No training", objective=Component(name="mae"))
    return resolve_run(scenario, none, protocol, overrides=overrides)


def load_for_probing(file: Path, spec: RunSpec, timm_model: str | None) -> EncoderToProbe:
    """Load an encoder of this package, or weights of another project.

    Args:
        file: An ``encoder.safetensors``, or a state dict as for ``--init``.
        spec: From `probing_spec`. Weights of another project go into its backbone.
        timm_model: Name of the model in timm that the weights are of; None for the backbone.

    Raises:
        RsclError: If the file cannot be read, or does not fit.
    """
    description = describes_encoder(file)
    if description is not None:
        if timm_model is not None:
            raise SpecError(f"{file} is an encoder of rscl-bench; leave --timm {timm_model} out.")
        return _own(file, spec, description)
    weights = initial_weights(file)
    if timm_model is None:
        with seeded(0, "encoder file"):
            encoder, adaptation = new_encoder(spec.model_copy(update={"init": weights}))
    else:
        encoder = _timm_encoder(spec, timm_model)
        adaptation = load_initial(encoder, file, weights.digest)
    assert adaptation is not None
    encoder.eval()
    source = EncoderSource(
        file=file.name,
        digest=weights.digest,
        timm=timm_model,
        backbone=None if timm_model else _portable(spec.protocol.backbone),
        adapted=adaptation.adapted,
        left_out=adaptation.left_out,
    )
    return EncoderToProbe(encoder, spec.protocol, source, _adapted_notes(adaptation))


def _adapted_notes(adaptation: Adaptation) -> tuple[str, ...]:
    left = adaptation.left_out
    more = (f"{len(left)} tensors beside the encoder left out",) if left else ()
    return (*adaptation.adapted, *more)


def _timm_encoder(spec: RunSpec, name: str) -> Encoder:
    protocol = spec.protocol
    if protocol.bands in ("spectral", "union"):
        raise SpecError(
            f"Protocol {spec.protocol_name} gives bands that differ to the encoder (bands = "
            f"'{protocol.bands}'), which a model of timm cannot take; add --set bands=grey3, or "
            "leave --timm out."
        )
    channels = len(selected(spec.scenario.probes[0].bands, protocol.bands))
    with seeded(0, "encoder file"):
        return TimmEncoder(name, protocol.image_size, channels)


def _own(file: Path, spec: RunSpec, description: EncoderDescription) -> EncoderToProbe:
    backbone = spec.protocol.backbone.name
    by_path = "@" in description.backbone.name and registry.is_reference(backbone)
    encoder, _ = read_encoder(file, backbone if by_path else None)
    mode = description.band_mode
    if mode is None and spec.protocol.bands == "grey3" and encoder.channels == 3:
        mode = "grey3"  # three bands of an image reach this encoder as they are
    update = {"image_size": description.image_size, "bands": mode}
    source = EncoderSource(
        file=file.name,
        digest=digest_of(file),
        backbone=description.backbone.model_dump(mode="json"),
        description=description,
    )
    return EncoderToProbe(encoder, spec.protocol.model_copy(update=update), source, ())


def _portable(backbone: Component) -> dict[str, Any]:
    portable: dict[str, Any] = registry.portable(backbone.model_dump(mode="json"))
    return portable


def _check_bands(loaded: EncoderToProbe, scenario: Scenario) -> None:
    """Refuse a probe whose images have another number of bands than the encoder's.

    Raises:
        SpecError: If the numbers differ.
    """
    if loaded.encoder.bands is not None:
        return
    for probe in scenario.probes:
        names = selected(probe.bands, loaded.protocol.bands)
        if len(names) != loaded.encoder.channels:
            raise SpecError(
                f"Probe '{probe.name}' has {len(names)} bands ({', '.join(names)}), and the "
                f"encoder takes {loaded.encoder.channels}; choose a scenario with other probes."
            )


def _band_notes(loaded: EncoderToProbe, scenario: Scenario) -> list[str]:
    description = loaded.source.description
    if description is None or loaded.protocol.bands is not None:
        return []
    return [
        f"probe '{probe.name}' has the bands {', '.join(probe.bands)}, and the encoder was trained "
        f"on {', '.join(description.bands)}"
        for probe in scenario.probes
        if probe.bands != description.bands
    ]


def probe_encoder(
    loaded: EncoderToProbe,
    spec: RunSpec,
    data_root: Path | None,
    device: str,
    on_bad_tile: OnBadTile,
    reporter: Reporter,
    record: tuple[RunRecord, int] | None = None,
) -> EncoderScores:
    """Evaluate an encoder on all probes of a scenario, as a run does after a task.

    Args:
        loaded: From `load_for_probing`.
        spec: From `probing_spec`.
        data_root: Folder of the archives; None for the sketch edition.
        device: As in `rscl_bench.engine.device.open_device`.
        on_bad_tile: Whether an image that cannot be used stops packing, or is left out.
        reporter: Told of the progress.
        record: The encoder's record and its row of scores, to compare with, from `recorded_row`.

    Raises:
        RsclError: If an archive is missing, or the encoder does not fit.
    """
    scenario, protocol, encoder = spec.scenario, loaded.protocol, loaded.encoder
    _check_bands(loaded, scenario)
    for note in (*loaded.notes, *_band_notes(loaded, scenario)):
        reporter.message(f"note: {note}")
    opened_device = open_device(device, protocol.precision)
    archives = find_archives(scenario, data_root, on_bad_tile, reporter)
    probes = [
        open_probe(probe, protocol, archives, reporter.progress, encoder.bands)
        for probe in scenario.probes
    ]
    results = _results(probes, encoder.to(opened_device.torch), protocol, opened_device, reporter)
    content = scenario_content(scenario)
    data = {
        probe_key(probe.spec.name, role): store.source_digest
        for probe in probes
        for role, store in probe.stores.items()
    }
    probed = EncoderScores(
        rscl_bench=__version__,
        encoder=loaded.source,
        scenario=ScenarioName(
            name=scenario.name, version=scenario.version, digest=identity(content)
        ),
        edition=archives.edition,
        protocol_name=spec.protocol_name,
        protocol=registry.portable(protocol.model_dump(mode="json")),
        precision=opened_device.precision,
        device=opened_device.name,
        data=data,
        probes=results,
    )
    return probed.model_copy(update={"recorded": _comparable(probed, record)})


def _results(
    probes: list[OpenProbe],
    encoder: Encoder,
    protocol: Protocol,
    device: Device,
    reporter: Reporter,
) -> tuple[ProbeResult, ...]:
    frozen, results = FrozenEncoder(encoder), []
    for done, probe in enumerate(probes, start=1):
        scores, collapse = probe.evaluate(frozen, protocol, device)
        labels = probe.scored_labels()
        name = probe.spec.name
        results.append(
            ProbeResult(
                **probe_record(probe).model_dump(),
                score=probe_scores({name: labels}, {name: scores})[name],
                spread=SpreadRecord(**collapse._asdict()),
                images={
                    role: RoleImages(labels=labels[role].tolist(), scores=array.tolist())
                    for role, array in scores.items()
                },
            )
        )
        reporter.progress("probing", done, len(probes))
    return tuple(results)


def recorded_row(file: Path, digest: str) -> tuple[RunRecord, int] | None:
    """Return the record that lies beside an encoder's file, and the row of its scores there.

    Args:
        file: The file.
        digest: Its SHA-256.

    Returns:
        None if there is no record, or it does not hold the digest.
    """
    for folder in (file.parent, file.parent.parent):
        path = folder / "record.json"
        if not path.is_file():
            continue
        try:
            record = read_record(path)
        except ArtefactError:
            continue
        if record.encoder_digest == digest:
            return record, len(record.tasks)
        for number, task in enumerate(record.tasks, start=1):
            if record.task_encoders.get(task.name) == digest:
                return record, number
    return None


def _comparable(
    probed: EncoderScores, found: tuple[RunRecord, int] | None
) -> dict[str, ProbeScore] | None:
    """Return the recorded scores, if record and probing have equal data and equal settings."""
    if found is None:
        return None
    record, row = found
    before = record.identity
    given = {name: probed.protocol.get(name) for name in _SCORED_BY}
    equal = (
        (before.scenario, before.edition) == (probed.scenario, probed.edition)
        and given == {name: before.protocol.get(name) for name in _SCORED_BY}
        and before.precision == probed.precision
        and probed.data.items() <= before.data.items()
    )
    return record.scores[row] if equal else None
