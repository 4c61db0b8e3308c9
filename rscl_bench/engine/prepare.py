"""Everything that a run needs, opened and checked before its first step."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from pydantic import ValidationError

import rscl_bench
from rscl_bench import registry
from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.encoder_bands import channels_of, encoder_bands
from rscl_bench.engine.device import Device, open_device
from rscl_bench.engine.initial import fit_initial
from rscl_bench.engine.parent import ParentRun
from rscl_bench.engine.probing import (
    OpenProbe,
    build_probe,
    open_probe,
    open_task,
    pixel_scaling,
)
from rscl_bench.errors import ArtefactError, SpecError, shown
from rscl_bench.progress import Progress
from rscl_bench.results.schema import Identity, InitRecord, ScenarioName, probe_key, task_key
from rscl_bench.spec import Edition, RunSpec, Scenario, first_problem, identity
from rscl_bench.tiles.source import ArchiveSource
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.view import PixelScaling


@dataclass(frozen=True)
class PreparedRun:
    """A run with its opened tiles and device.

    Attributes:
        spec: The run.
        edition: Whether the archives are real or sketches.
        device: The device that computes.
        stores: Tiles of every task.
        scalings: Pixel scaling of every task.
        probes: Opened probes, in the order of the scenario.
        identity: The run's identity.
        packing_seconds: Seconds of packing and checking the tiles.
        plugins: Avalanche plugins, called after the method's strategies.
        parent: The finished run that this run continues; None for a run from its beginning. The
            stores of the parent's tasks hold no more than the tiles that strategies keep.
        gone: Names of the parent's probes whose archive is not there, and that are not evaluated.
        init: The file that the encoder started from; None if the seed drew its weights.
    """

    spec: RunSpec
    edition: Edition
    device: Device
    stores: Sequence[TileStore]
    scalings: Sequence[PixelScaling]
    probes: Sequence[OpenProbe]
    identity: Identity
    packing_seconds: float
    plugins: Sequence[BaseSGDPlugin] = ()
    parent: ParentRun | None = None
    gone: tuple[str, ...] = ()
    init: InitRecord | None = None

    def named_stores(self) -> dict[str, TileStore]:
        """Return the opened stores by their key in ``identity.data``."""
        first = 0 if self.parent is None else self.parent.tasks
        return _named_stores(self.spec, self.stores, self.probes, first)

    def pixel_digests(self) -> dict[str, str]:
        """Return the digests of the packed pixels by key in ``identity.data``."""
        known = {} if self.parent is None else self.parent.pixel_digests(self.spec.scenario)
        return known | {name: store.digest for name, store in self.named_stores().items()}

    def with_spec(self, spec: RunSpec) -> "PreparedRun":
        """Return this prepared run for another method or seed of its scenario and protocol."""
        known = _identity(spec, self.edition, self.device)
        kept = {name: getattr(self.identity, name) for name in ("data", "plugins", "parent")}
        return replace(self, spec=spec, identity=known.model_copy(update=kept))

    def with_plugins(self, plugins: Sequence[BaseSGDPlugin]) -> "PreparedRun":
        """Return this prepared run with Avalanche plugins that act after the strategies.

        The class names of the plugins become part of the run's identity. Their parameters do not:
        give a plugin with other parameters another class name or another output folder.
        """
        names = tuple(class_name(plugin) for plugin in plugins)
        identity = self.identity.model_copy(update={"plugins": names})
        return replace(self, plugins=tuple(plugins), identity=identity)


def class_name(plugin: BaseSGDPlugin) -> str:
    """Return the qualified name of a plugin's class."""
    return f"{type(plugin).__module__}.{type(plugin).__qualname__}"


def open_run(
    spec: RunSpec,
    archives: ArchiveSource,
    device: str,
    progress: Progress,
    parent: ParentRun | None = None,
) -> PreparedRun:
    """Open tiles and device, and check that they fit the protocol.

    Args:
        spec: The run.
        archives: Where the tiles come from.
        device: Device name, as in `open_device`.
        progress: Callback for the progress of packing.
        parent: The finished run that this run continues. The archives of its tasks are not read,
            and probes whose archive is gone are left out.

    Raises:
        RsclError: If something is missing or does not fit.
    """
    scenario, protocol = spec.scenario, spec.protocol
    opened_device = open_device(device, protocol.precision)
    if parent is not None:
        _check_setting(parent, archives.edition, opened_device)
    _check_tile_sizes(spec)
    known = _identity(spec, archives.edition, opened_device)  # packing may take hours
    init = fit_initial(spec) if parent is None else parent.record.init
    for probe in scenario.probes:
        build_probe(probe, protocol)  # refuses wrong parameters
    started = time.perf_counter()
    kept = [] if parent is None else parent.stores()
    gone = [] if parent is None else parent.gone(scenario.probes, archives)
    bands, new = encoder_bands(scenario, protocol), scenario.tasks[len(kept) :]
    tasks = [
        (store, pixel_scaling(store, task.bands, protocol, channels_of(task, bands)))
        for store, task in zip(kept, scenario.tasks, strict=False)
    ]
    tasks += [open_task(task, protocol, archives, progress, bands) for task in new]
    present = [probe for probe in scenario.probes if probe.name not in gone]
    probes = [open_probe(probe, protocol, archives, progress, bands) for probe in present]
    stores = [store for store, _ in tasks]
    _check_tile_counts(spec, stores)
    opened = _named_stores(spec, stores, probes, len(kept))
    update: dict[str, Any] = {"data": {n: store.source_digest for n, store in opened.items()}}
    if parent is not None:
        parent.check_data(update["data"], {n: store.digest for n, store in opened.items()})
        update["data"] = parent.data(scenario) | update["data"]
        update |= {"parent": parent.key(), "init": parent.record.identity.init}
    return PreparedRun(
        spec=spec,
        edition=archives.edition,
        device=opened_device,
        stores=stores,
        scalings=[scaling for _, scaling in tasks],
        probes=probes,
        identity=known.model_copy(update=update),
        packing_seconds=time.perf_counter() - started,
        parent=parent,
        gone=tuple(gone),
        init=init,
    )


def check_writable(folder: Path) -> None:
    """Make a folder and check that files can be written into it.

    Raises:
        ArtefactError: If the folder is not writable.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # a random name: several runs may check at one moment
            pass
    except OSError as error:
        raise ArtefactError(
            f"The output folder {folder} is not writable ({error.strerror or error}); choose "
            "another with --out."
        ) from error


def _named_stores(
    spec: RunSpec, stores: Sequence[TileStore], probes: Sequence[OpenProbe], first: int = 0
) -> dict[str, TileStore]:
    """Return the stores of the probes, and of the tasks from the number ``first`` on."""
    tasks = zip(spec.scenario.tasks[first:], stores[first:], strict=True)
    named = {task_key(task.name): store for task, store in tasks}
    for probe in probes:
        named |= {probe_key(probe.spec.name, role): s for role, s in probe.stores.items()}
    return named


def _check_setting(parent: ParentRun, edition: Edition, device: Device) -> None:
    """Refuse to continue a run on archives of another edition, or in another precision."""
    before = parent.record.identity
    if before.edition != edition:
        given = "leave the data root out" if before.edition == "sketch" else "give --data-root"
        raise SpecError(
            f"The run in {parent.path.parent} was trained on the {before.edition} edition, and "
            f"these archives are the {edition} edition; {given}."
        )
    if before.precision != device.precision:
        raise SpecError(
            f"The run in {parent.path.parent} was trained in {before.precision}, and {device.name} "
            f"computes in {device.precision}; extend the run on a device like its own."
        )


def scenario_content(scenario: Scenario) -> dict[str, Any]:
    """Return tasks and probes of a scenario without paths; their hash is the scenario's digest."""
    content = scenario.model_dump(mode="json", include={"tasks", "probes"})
    portable: dict[str, Any] = registry.portable(content)
    return portable


def _identity(spec: RunSpec, edition: Edition, device: Device) -> Identity:
    """Return the identity of a run without the digests of its data.

    Raises:
        SpecError: If a record cannot hold a value.
    """
    scenario = spec.scenario
    content = scenario_content(scenario)
    try:
        known = Identity(
            scenario=ScenarioName(
                name=scenario.name, version=scenario.version, digest=identity(content)
            ),
            edition=edition,
            protocol_name=spec.protocol_name,
            precision=device.precision,
            data={},
            code=rscl_bench.__version__,
            **_identity_of_spec(spec),
        )
        known.run_id()
    except ValidationError as error:
        raise SpecError(
            f"Scenario {scenario.name} cannot be recorded: {shown(first_problem(error))}."
        ) from error
    except ValueError as error:  # a number that is not finite
        raise SpecError(f"This run cannot be recorded: {error}.") from error
    return known


def _identity_of_spec(spec: RunSpec) -> dict[str, Any]:
    """Return the fields of an identity that differ between runs on the same tiles."""
    method = registry.portable(spec.method.model_dump(mode="json"))
    protocol = registry.portable(spec.protocol.model_dump(mode="json"))
    return {
        "method": method,
        "protocol": protocol,
        "overrides": spec.overrides,
        "seed": spec.seed,
        "init": None if spec.init is None else spec.init.digest,
    }


def _check_tile_sizes(spec: RunSpec) -> None:
    sizes = {f"task '{task.name}'": task.tile_size for task in spec.scenario.tasks}
    sizes |= {f"probe '{probe.name}'": probe.tile_size for probe in spec.scenario.probes}
    for name, tile_size in sizes.items():
        if tile_size < spec.protocol.image_size:
            raise SpecError(
                f"Tiles of {name} are {tile_size} pixels, smaller than the crop of "
                f"{spec.protocol.image_size}; raise its tile_size or lower image_size."
            )


def _check_tile_counts(spec: RunSpec, stores: Sequence[TileStore]) -> None:
    batch_size = spec.protocol.training.batch_size
    for task, store in zip(spec.scenario.tasks, stores, strict=True):
        if len(store) < batch_size:
            raise SpecError(
                f"Task '{task.name}' has {len(store)} tiles, fewer than one batch of "
                f"{batch_size}; lower training.batch_size."
            )
