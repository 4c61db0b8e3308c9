"""One run: open everything, check it, train through the stream, probe after each task, record."""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Literal, Protocol

import torch
from safetensors.torch import save_file
from torch import Tensor

import rscl_bench
from rscl_bench import registry
from rscl_bench.avalanche_api import DatasetExperience
from rscl_bench.engine.checkpointing.manager import INTERVAL, Checkpoints
from rscl_bench.engine.checkpointing.state import Snapshot
from rscl_bench.engine.device import Device, open_device
from rscl_bench.engine.flops import count_flops, matrix_flops
from rscl_bench.engine.memory import resident_peak
from rscl_bench.engine.prober import Prober
from rscl_bench.engine.probing import OpenProbe, open_probe, open_task
from rscl_bench.engine.stream import make_stream
from rscl_bench.engine.trainer import SelfSupervisedTrainer, StepListener
from rscl_bench.errors import ArtefactError, SpecError, TrainingError
from rscl_bench.models.compiled import compile_blocks
from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import Objective
from rscl_bench.progress import Progress
from rscl_bench.randomness import seeded
from rscl_bench.results import schema as records
from rscl_bench.results.image_scores import probe_scores, write_image_scores
from rscl_bench.results.record import make_record, package_versions, write_record
from rscl_bench.results.schema import probe_key, scenario_folder, task_key
from rscl_bench.spec import Component, OnBadTile, RunSpec, identity
from rscl_bench.strategies.base import Context, Strategy
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.view import PixelScaling

Edition = Literal["real", "sketch"]


class Reporter(Protocol):
    """What is told of a run's progress."""

    def progress(self, what: str, done: int, total: int) -> None:
        """Report a part done, such as packing or the steps of a task."""

    def message(self, text: str) -> None:
        """Report one line."""


@dataclass(frozen=True)
class PreparedRun:
    """Everything a run needs, checked before its first step.

    Attributes:
        spec: The run.
        edition: Real archives or sketches of them.
        device: Where to compute.
        stores: Tiles of every task.
        archives: Of every task.
        probes: In the order of the scenario.
        identity: What the run is.
        packing_seconds: Time of packing and checking the tiles.
    """

    spec: RunSpec
    edition: Edition
    device: Device
    stores: Sequence[TileStore]
    archives: Sequence[PixelScaling]
    probes: Sequence[OpenProbe]
    identity: records.Identity
    packing_seconds: float

    def named_stores(self) -> dict[str, TileStore]:
        """Return all stores by their key in ``identity.data``."""
        tasks = self.spec.scenario.tasks
        named = {task_key(t.name): s for t, s in zip(tasks, self.stores, strict=True)}
        for probe in self.probes:
            named |= {probe_key(probe.spec.name, role): s for role, s in probe.stores.items()}
        return named

    def with_spec(self, spec: RunSpec) -> "PreparedRun":
        """Return the same, for another method or seed of the same scenario and protocol."""
        return replace(self, spec=spec, identity=self.identity.model_copy(update=_own(spec)))


def open_run(
    spec: RunSpec,
    edition: Edition,
    data_root: Path,
    cache: Path,
    device: str,
    progress: Progress,
    on_bad_tile: OnBadTile = "stop",
) -> PreparedRun:
    """Open tiles and device, and check that they fit the protocol.

    Args:
        spec: The run.
        edition: Whether ``data_root`` holds real archives or sketches.
        data_root: Folder that holds the archives.
        cache: Folder of the tile stores.
        device: As `open_device` takes it.
        progress: Told of packing.
        on_bad_tile: As `open_or_pack` takes it.

    Raises:
        RsclError: If anything is missing or does not fit.
    """
    scenario, protocol = spec.scenario, spec.protocol
    opened_device = open_device(device, protocol.precision)
    _check_sizes(spec)
    started = time.perf_counter()
    where = (protocol, data_root, cache, progress, on_bad_tile)
    tasks = [open_task(task, *where) for task in scenario.tasks]
    probes = [open_probe(probe, *where) for probe in scenario.probes]
    stores = [store for store, _ in tasks]
    for task, store in zip(scenario.tasks, stores, strict=True):
        if len(store) < protocol.training.batch_size:
            raise SpecError(
                f"Task '{task.name}' has {len(store)} tiles, fewer than one batch of "
                f"{protocol.training.batch_size}; lower training.batch_size."
            )
    data = {
        task_key(task.name): store.digest
        for task, store in zip(scenario.tasks, stores, strict=True)
    }
    for probe in probes:
        for role, store in probe.stores.items():
            data[probe_key(probe.spec.name, role)] = store.digest
    content = registry.portable(scenario.model_dump(mode="json", include={"tasks", "probes"}))
    return PreparedRun(
        spec=spec,
        edition=edition,
        device=opened_device,
        stores=stores,
        archives=[archive for _, archive in tasks],
        probes=probes,
        identity=records.Identity(
            scenario=records.ScenarioName(
                name=scenario.name, version=scenario.version, digest=identity(content)
            ),
            edition=edition,
            protocol_name=spec.protocol_name,
            precision=opened_device.precision,
            data=data,
            code=rscl_bench.__version__,
            **_own(spec),
        ),
        packing_seconds=time.perf_counter() - started,
    )


def _own(spec: RunSpec) -> dict[str, Any]:
    """Return the part of a run's identity that tells it from others on the same tiles."""
    method = registry.portable(spec.method.model_dump(mode="json"))
    protocol = registry.portable(spec.protocol.model_dump(mode="json"))
    return {
        "method": method,
        "protocol": protocol,
        "overrides": spec.overrides,
        "seed": spec.seed,
    }


def _check_sizes(spec: RunSpec) -> None:
    sizes = {f"task '{task.name}'": task.tile_size for task in spec.scenario.tasks}
    sizes |= {f"probe '{probe.name}'": probe.tile_size for probe in spec.scenario.probes}
    for name, tile_size in sizes.items():
        if tile_size < spec.protocol.image_size:
            raise SpecError(
                f"Tiles of {name} are {tile_size} pixels, smaller than the crop of "
                f"{spec.protocol.image_size}; raise its tile_size or lower image_size."
            )


def run_folder(out: Path, opened: PreparedRun) -> Path:
    """Return the folder of a run's artefacts; two identities never share one."""
    spec = opened.spec
    scenario = scenario_folder(spec.scenario.name, opened.edition)
    name = f"seed{spec.seed}-{opened.identity.run_id()}"
    return out / scenario / spec.protocol_name / spec.method.name / name


def execute(
    opened: PreparedRun,
    folder: Path,
    reporter: Reporter,
    *,
    interval: float = INTERVAL,
    force: bool = False,
) -> records.RunRecord:
    """Train and probe, then write encoder, image scores and record into a folder.

    A run that was interrupted goes on from its last checkpoint, to the same bits.

    Args:
        opened: What `open_run` returned.
        folder: Where the artefacts go.
        reporter: Told of progress.
        interval: Seconds between checkpoints within a task.
        force: Whether to start over.

    Returns:
        The record that was written.

    Raises:
        RsclError: If training cannot go on or the folder is not writable.
        Interrupted: If a signal asked the run to end.
    """
    check_writable(folder)
    running = _Running(opened, folder, reporter, interval)
    with running.checkpoints.interruption.watched():
        running.go(force)
    record = running.record()
    _save_encoder(running.objective.encoder, opened, folder / "encoder.safetensors")
    # The record last: where it is, the run is complete.
    write_image_scores(running.prober.image_scores(), folder / "record.json")
    write_record(record, folder / "record.json", force=True)
    running.checkpoints.remove()
    return record


class _Running:
    """A run that is under way, from its beginning or from a checkpoint."""

    def __init__(self, opened: PreparedRun, folder: Path, reporter: Reporter, interval: float):
        self.opened, self.reporter = opened, reporter
        self.begun, self.started, self.earlier = time.perf_counter(), datetime.now(UTC), 0.0
        spec, device = opened.spec, opened.device
        self.objective = build_objective(spec, device.torch)
        strategies = build_strategies(spec, self.objective, device.torch)
        self.flops = count_flops(self.objective, spec.protocol.image_size)
        if spec.protocol.compile:
            compile_blocks(self.objective)
        self.prober = Prober(opened.probes, self.objective.encoder, spec.protocol, device)
        self.template = _template(opened, self.objective, strategies, self._on_step)
        self.peaks: list[int | None] = []
        self.matrix_flops = matrix_flops(device)
        self.checkpoints = Checkpoints(
            folder,
            opened.identity,
            _provenance(device, self.started),
            interval,
            self._state,
            reporter.message,
        )

    def go(self, force: bool) -> None:
        """Train and probe what is not done yet, or everything again."""
        if force:
            self.checkpoints.remove()
        elif (snapshot := self.checkpoints.latest()) is not None:
            self._restore(snapshot)
        if not self.prober.rows:
            self.prober.probe()
        for task, experience in enumerate(make_stream(self.opened.stores).streams["train"]):
            if task > self.template.task:
                self._train(experience)
            if len(self.prober.rows) < task + 2:
                self.prober.probe()
                self.reporter.message(_task_line(self.opened, self.template, self.prober))

    def _train(self, experience: DatasetExperience) -> None:
        device = self.opened.device.torch
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            self.template.train(experience, eval_streams=[])
        except (MemoryError, RuntimeError) as error:
            if not _out_of_memory(error):
                raise
            raise TrainingError(
                f"Memory ran out in task {self.template.task + 1} after step {self.template.step}; "
                "lower training.batch_size or run fewer things beside it. The same command goes on "
                "from the last checkpoint."
            ) from error
        self.peaks.append(_peak_memory(device))
        self.checkpoints.write()

    def _on_step(self, task: int, step: int, steps: int, _loss: Tensor) -> None:
        name = self.opened.spec.scenario.tasks[task].name
        self.reporter.progress(f"training task {task + 1} {name}", step, steps)
        if self.checkpoints.wanted():
            with self.template.paused():
                self.checkpoints.write()
        self.checkpoints.after_step(task, step, steps)

    def _total(self) -> float:
        return self.earlier + time.perf_counter() - self.begun

    def _state(self) -> Snapshot:
        tensors, facts = self.template.snapshot()
        more = {
            "started": self.started.isoformat(),
            "total": self._total(),
            "peaks": self.peaks,
            **self.prober.facts(),
        }
        return Snapshot(tensors | self.prober.tensors(), facts | more)

    def _restore(self, snapshot: Snapshot) -> None:
        facts = snapshot.facts
        self.template.restore(snapshot)
        self.prober.restore(snapshot)
        self.started = datetime.fromisoformat(facts["started"])
        self.earlier, self.peaks = facts["total"], list(facts["peaks"])

    def record(self) -> records.RunRecord:
        """Return the record of a run that is done."""
        opened, prober, template = self.opened, self.prober, self.template
        images = prober.image_scores()
        provenance = _provenance(opened.device, self.started)
        return make_record(
            identity=opened.identity,
            provenance=provenance.model_copy(
                update={"resumed": self.checkpoints.resumed, "matrix_flops": self.matrix_flops}
            ),
            tasks=self._task_records(),
            parameters=records.Parameters(
                encoder=_count([self.objective.encoder]),
                trainable=_count(template.trained_modules(), trained_only=True),
            ),
            probes=[_probe_record(probe) for probe in opened.probes],
            scores=prober.scores(),
            pixel_statistics=probe_scores(images.labels, images.pixel_statistics),
            image_scores_digest=images.digest(),
            seconds=records.Seconds(
                packing=opened.packing_seconds,
                training=sum(template.train_seconds),
                probing=prober.seconds,
                total=opened.packing_seconds + self._total(),
            ),
            flops=records.FlopsRecord(**self.flops._asdict()),
            spread=prober.spreads,
            skipped={n: s.skipped for n, s in opened.named_stores().items() if s.skipped},
        )

    def _task_records(self) -> list[records.TaskRecord]:
        spec, template = self.opened.spec, self.template
        training, rows = spec.protocol.training, []
        for number, task in enumerate(spec.scenario.tasks):
            steps, seconds = template.steps_taken[number], template.train_seconds[number]
            rate = steps * training.batch_size / seconds if steps else None
            rows.append(
                records.TaskRecord(
                    name=task.name,
                    tiles=len(self.opened.stores[number]),
                    epochs=training.epochs,
                    steps=steps,
                    train_seconds=seconds,
                    images_per_second=rate,
                    final_loss=template.final_loss[number],
                    peak_memory_bytes=self.peaks[number],
                    waited_seconds=template.waited_seconds[number],
                    flop_utilisation=rate and rate * sum(self.flops) / self.matrix_flops,
                )
            )
        return rows


def _template(
    opened: PreparedRun, objective: Objective, strategies: Sequence[Strategy], on_step: StepListener
) -> SelfSupervisedTrainer:
    return SelfSupervisedTrainer(
        objective=objective,
        stores=opened.stores,
        archives=opened.archives,
        strategies=strategies,
        protocol=opened.spec.protocol,
        seed=opened.spec.seed,
        device=opened.device.torch,
        autocast=opened.device.autocast,
        on_step=on_step,
    )


def build_objective(spec: RunSpec, device: torch.device) -> Objective:
    """Return a new objective with its encoder; weights are a function of the seed alone."""
    backbone = Component.model_validate(spec.protocol.backbone)
    encoder_class = registry.load("backbones", backbone.name)
    objective_class = registry.load("objectives", spec.method.objective.name)
    with seeded(spec.seed, "initialisation"):
        encoder = encoder_class(
            encoder_class.Params(**backbone.parameters),
            spec.protocol.image_size,
            spec.scenario.channels,
        )
        parameters = spec.method.objective.parameters
        objective: Objective = objective_class(objective_class.Params(**parameters), encoder)
    return objective.to(device)


def build_strategies(spec: RunSpec, objective: Objective, device: torch.device) -> list[Strategy]:
    """Return a recipe's strategies.

    Raises:
        SpecError: If the objective lacks what a strategy needs.
    """
    context = Context(objective, spec.protocol, spec.seed, device)
    built = []
    for component in spec.method.strategies:
        strategy_class = registry.load("strategies", component.name)
        parameters = strategy_class.Params(**component.parameters)
        for need in strategy_class.needs_with(parameters):
            if not getattr(objective, need, False):
                raise SpecError(
                    f"Strategy '{component.name}' needs an objective with '{need}', which "
                    f"'{spec.method.objective.name}' has not; use another objective."
                )
        built.append(strategy_class(parameters, context))
    return built


def check_writable(folder: Path) -> None:
    """Make a folder and see that files can be written into it.

    Raises:
        ArtefactError: If they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):  # its name is its own, since runs may begin together
            pass
    except OSError as error:
        raise ArtefactError(
            f"The output folder {folder} is not writable ({error.strerror or error}); choose "
            "another with --out."
        ) from error


def _task_line(opened: PreparedRun, template: SelfSupervisedTrainer, prober: Prober) -> str:
    number = len(prober.rows) - 2
    scores, ranks = [], []
    for probe, score in prober.scores()[-1].items():
        micro = score.test.micro
        scores.append(f"{probe} micro-mAP {'undefined' if micro is None else f'{100 * micro:.2f}'}")
        spread = prober.spreads[-1][probe]
        ranks.append(f"(spread {spread.std:.2f}, effective rank {spread.effective_rank:.1f})")
    if len(set(ranks)) == 1:  # probes of the same tiles
        found = f"{', '.join(scores)} {ranks[0]}"
    else:
        found = ", ".join(map(" ".join, zip(scores, ranks, strict=True)))
    task = opened.spec.scenario.tasks[number].name
    loss, seconds = template.final_loss[number], template.train_seconds[number]
    done = "no step" if loss is None else f"trained in {seconds:.1f} s, loss {loss:.4f}"
    return f"task {number + 1} {task}: {done}, {found}"


def _probe_record(probe: OpenProbe) -> records.ProbeRecord:
    tiles, labels = probe.labels["test"].shape
    return records.ProbeRecord(
        name=probe.spec.name,
        probe=registry.portable(probe.spec.probe),
        task=probe.spec.task,
        test_tiles=tiles,
        labels=labels,
    )


def _provenance(device: Device, started: datetime) -> records.Provenance:
    return records.Provenance(
        rscl_bench=rscl_bench.__version__,
        started=started,
        device_type=device.torch.type,
        device=device.name,
        threads=torch.get_num_threads(),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.machine()}",
        versions=package_versions(),
    )


def _out_of_memory(error: Exception) -> bool:
    known = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, known) or "can't allocate memory" in str(error)  # torch on a CPU


def _count(modules: Sequence[torch.nn.Module], trained_only: bool = False) -> int:
    return sum(
        parameter.numel()
        for module in modules
        for parameter in module.parameters()
        if parameter.requires_grad or not trained_only
    )


def _peak_memory(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident_peak()


def _save_encoder(encoder: Encoder, opened: PreparedRun, path: Path) -> None:
    """Write the final encoder whole or not at all, with what is needed to build it again."""
    spec = opened.spec
    description = {
        "run": opened.identity.run_id(),
        "backbone": spec.protocol.backbone,
        "image_size": spec.protocol.image_size,
        "bands": spec.scenario.tasks[0].bands,
    }
    # One key: safetensors writes several in an order that changes from run to run.
    metadata = {"rscl_bench": json.dumps(description, sort_keys=True)}
    partial = path.with_suffix(".partial")
    try:
        state = {name: value.contiguous().cpu() for name, value in encoder.state_dict().items()}
        save_file(state, partial, metadata)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ArtefactError(
            f"{path} cannot be written ({error}); make room and run again."
        ) from error
