"""One run: train through the stream, probe after each task, write encoder and record."""

import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor

from rscl_bench.avalanche_api import DatasetExperience
from rscl_bench.encoder_bands import sensor_bands
from rscl_bench.engine.build import build_objective, build_strategies
from rscl_bench.engine.checkpointing.files import FOLDER as CHECKPOINTS
from rscl_bench.engine.checkpointing.manager import INTERVAL, Checkpoints
from rscl_bench.engine.checkpointing.state import Snapshot, has_state, loading
from rscl_bench.engine.device import matrix_flops, peak_memory
from rscl_bench.engine.flops import Flops, count_flops
from rscl_bench.engine.kept_encoders import KeptEncoders
from rscl_bench.engine.losses import Losses
from rscl_bench.engine.memory import is_out_of_memory, memory_for
from rscl_bench.engine.parent import ParentRun, tell_changes
from rscl_bench.engine.prepare import PreparedRun, check_writable, class_name, scenario_content
from rscl_bench.engine.probing import Prober
from rscl_bench.engine.recording import (
    known_parts,
    parameter_counts,
    provenance_of,
    task_line,
    task_records,
)
from rscl_bench.engine.rehearsal import count_strategies
from rscl_bench.engine.run_lock import locked
from rscl_bench.engine.state_file import FILE as STATE
from rscl_bench.engine.state_file import SMALL, last_state, size_of, write_state
from rscl_bench.engine.stream import make_stream
from rscl_bench.engine.time_left import WholeRun, WholeRunClock
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.engine.watching import Watch, Watching
from rscl_bench.errors import TrainingError
from rscl_bench.models.compiled import compile_blocks
from rscl_bench.models.encoder_file import FILE as ENCODER
from rscl_bench.models.encoder_file import write_encoder
from rscl_bench.objectives.base import Objective
from rscl_bench.progress import Reporter
from rscl_bench.results.image_scores import probe_scores, write_image_scores
from rscl_bench.results.losses import FILE as LOSSES
from rscl_bench.results.losses import write_losses
from rscl_bench.results.record import make_record, read_record, write_record
from rscl_bench.results.schema import FlopsRecord, RunRecord, Seconds
from rscl_bench.spec import RunSpec
from rscl_bench.strategies.base import Strategy


def execute(
    prepared: PreparedRun,
    folder: Path,
    reporter: Reporter,
    *,
    interval: float = INTERVAL,
    force: bool = False,
    keep_state: bool | None = None,
    watching: Watching | None = None,
    keep_encoders: bool = False,
) -> RunRecord:
    """Train and probe, then write encoder, image scores and record into a folder.

    An interrupted run is resumed from its last checkpoint, and ends in the same bits. One process
    at a time executes a run in a folder.

    Args:
        prepared: The run, from `open_run`.
        folder: Folder of the artefacts.
        reporter: Shows the progress.
        interval: Seconds between checkpoints within a task.
        force: Whether to start over.
        keep_state: Whether the last state is kept beside the record, so that the run can be
            extended; None keeps a state of at most 64 MiB.
        watching: Loggers and online probe; None for none.
        keep_encoders: Whether the encoder after every task is kept; see `KeptEncoders`.

    Returns:
        The record that was written, here or by another process in the same moment.

    Raises:
        RsclError: If training cannot continue, the folder is not writable, or another process
            executes the run in this folder.
        Interrupted: If a signal ended the run.
    """
    check_writable(folder)
    path = folder / "record.json"
    with locked(folder):
        if path.is_file() and not force:  # another process recorded the run since this one began
            return read_record(path)
        for abandoned in folder.glob(".*.tmp"):  # of a process that was killed in a write
            abandoned.unlink(missing_ok=True)
        running = RunExecution(
            prepared, folder, reporter, interval, watching or Watching(), force, keep_encoders
        )
        try:
            with running.checkpoints.interruption.watched():
                running.go(force)
        except BaseException:
            with suppress(Exception):  # what ended the run counts
                running.watch.log.close("failed")
            raise
        running.watch.log.close()
        encoder = running.trainer.probed_encoder
        digest = write_encoder(folder / ENCODER, encoder, running.known.description)
        record = running.record(digest, running.keep_state(folder, keep_state))
        running.write_losses()  # the process may have been killed before it wrote the last task's
        # The record is written last: a run with a record is complete.
        write_image_scores(running.prober.image_scores(record.id), path)
        write_record(record, path, force=True)
        running.checkpoints.remove()
    return record


class RunExecution:
    """A run in progress, from its beginning or from a checkpoint."""

    def __init__(
        self,
        prepared: PreparedRun,
        folder: Path,
        reporter: Reporter,
        interval: float,
        watching: Watching,
        force: bool,
        keep_encoders: bool = False,
    ):
        self.prepared, self.reporter, self.folder = prepared, reporter, folder
        self.started, self.process_started = datetime.now(UTC), time.perf_counter()
        self.seconds_before = 0.0  # of the processes that were interrupted
        spec, device = prepared.spec, prepared.device
        with memory_for("to build the objective", "use a smaller backbone or smaller heads"):
            self.objective = build_objective(spec, device.torch)
            strategies = build_strategies(spec, self.objective, device.torch)
            self.flops = _count_operations(spec, self.objective)
        if spec.protocol.compile:
            compile_blocks(self.objective)
        self.trainer = self._make_trainer(self.objective, strategies)
        # Before training, so that a value that no record can hold is refused before training.
        self.known = known_parts(prepared, self.flops, self.started, self.trainer.probed)
        self.kept = KeptEncoders(folder, self.known.description, keep_encoders)
        self.prober = Prober(
            prepared.probes,
            self.trainer.probed_encoder,
            spec.protocol,
            device,
            [probe.name for probe in spec.scenario.probes],
            None if prepared.parent is None else prepared.parent.scores(),
        )
        self.losses = Losses([task.name for task in spec.scenario.tasks], device.torch)
        self.peaks: list[int | None] = []
        self.matrix_flops = matrix_flops(device)
        self._say = reporter.message
        self.whole = WholeRunClock(reporter)
        begun = (folder / CHECKPOINTS).is_dir() and not force
        self.watch = Watch(watching, prepared, folder, reporter, fresh=not begun)
        stateless = [class_name(p) for p in prepared.plugins if not has_state(p)]
        if stateless:
            reporter.message(
                f"note: {', '.join(stateless)} has no state_dict and load_state_dict, so that this "
                "run writes no checkpoints and starts over after an interruption"
            )
        self.checkpoints = Checkpoints(
            folder,
            prepared.identity,
            prepared.pixel_digests(),
            provenance_of(device, self.started),
            interval,
            self._snapshot,
            reporter.message,
            enabled=not stateless,
        )

    def _make_trainer(
        self, objective: Objective, strategies: Sequence[Strategy]
    ) -> SelfSupervisedTrainer:
        prepared = self.prepared
        return SelfSupervisedTrainer(
            objective=objective,
            stores=prepared.stores,
            scalings=prepared.scalings,
            strategies=strategies,
            protocol=prepared.spec.trained_protocol(),
            seed=prepared.spec.seed,
            device=prepared.device.torch,
            autocast=prepared.device.autocast,
            plugins=prepared.plugins,
            on_step=self._on_step,
        )

    def go(self, force: bool) -> None:
        """Train and probe what a checkpoint does not hold, or everything again."""
        if force:
            self.checkpoints.remove()
            self.kept.remove()
        snapshot = None if force else self.checkpoints.latest()
        if snapshot is not None:
            self._restore(snapshot)
        elif self.prepared.parent is not None:
            self._continue(self.prepared.parent)
        if not self.prober.rows:
            self.prober.probe()
        for task, experience in enumerate(make_stream(self.prepared.stores).streams["train"]):
            if task > self.trainer.task:
                self._train(experience)
            if len(self.prober.rows) < task + 2:
                self.kept.write(task + 1, self.trainer.probed_encoder)
                self.prober.probe()
                self.reporter.message(task_line(self.prepared, self.trainer, self.prober))
                self.watch.task(self.trainer, self.prober)

    def _continue(self, parent: ParentRun) -> None:
        """Begin where a finished run ended, and evaluate its encoder on the new probes."""
        tell_changes(provenance_of(self.prepared.device, self.started), parent, self._say)
        # The encoder before any training is built anew from the seed, but not from a file.
        untrained = self.prober.probe_new() if parent.record.init is None else None
        with loading(f"The state beside {parent.path}", "run that run again with --keep-state"):
            self.trainer.restore(parent.snapshot())
        self.peaks = [task.peak_memory_bytes for task in parent.record.tasks]
        self.seconds_before = parent.record.seconds.total - (parent.record.seconds.packing or 0.0)
        self.prober.continue_earlier()
        if untrained is not None:
            self.prober.merge(0, untrained)
        self.prober.merge(parent.tasks, self.prober.probe_new())
        last = self.prepared.spec.scenario.tasks[parent.tasks - 1].name
        self._say(f"continuing run {parent.record.id} after task {parent.tasks} {last}")

    def _train(self, experience: DatasetExperience) -> None:
        device = self.prepared.device.torch
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        try:
            self.trainer.train(experience, eval_streams=[])
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                f"Memory ran out in task {self.trainer.task + 1} after step {self.trainer.step}; "
                "lower training.batch_size or run fewer things beside it. The same command resumes "
                "from the last checkpoint."
            ) from error
        self.peaks.append(peak_memory(device))
        self.checkpoints.write()
        self.write_losses()  # while the run goes on, for a curve of an unfinished run

    def write_losses(self) -> None:
        """Write the losses so far beside the record."""
        write_losses(self.losses.frame(), self.folder / LOSSES)

    def _on_step(self, task: int, step: int, steps: int, loss: Tensor) -> None:
        trainer = self.trainer
        rate = trainer.optimizer.param_groups[0]["lr"]
        window = self.losses.add(task, step, steps, loss, trainer.mb_output.loss, rate)
        self.watch.step(trainer, self.losses, window, step, steps)
        if self.whole.due():
            self.whole.tell(self._whole_run(step, steps))
        name = self.prepared.spec.scenario.tasks[task].name
        try:
            self.reporter.progress(f"training task {task + 1} {name}", step, steps)
        except Exception:  # such as a pipe that is closed: the step is complete, so it is kept
            self.checkpoints.write()
            raise
        if self.checkpoints.wanted():
            with self.trainer.task_clock.paused():
                self.checkpoints.write()
        self.checkpoints.after_step(task, step, steps)

    def _whole_run(self, step: int, steps: int) -> WholeRun:
        """Return how far the run is within a task."""
        trainer, training = self.trainer, self.prepared.spec.protocol.training
        later = [
            tiles // training.batch_size * training.epochs
            for tiles in trainer.tile_counts[trainer.task + 1 :]
        ]
        clock = trainer.task_clock
        return WholeRun(
            steps=[*trainer.steps_taken, steps, *later],
            steps_done=sum(trainer.steps_taken) + step,
            training_seconds=sum(clock.train_seconds) + clock.seconds(),
            probings=len(trainer.tile_counts) + 1,
            probings_done=len(self.prober.rows),
            probing_seconds=self.prober.seconds,
        )

    def _seconds(self) -> float:
        return self.seconds_before + time.perf_counter() - self.process_started

    def _snapshot(self) -> Snapshot:
        tensors, metadata = self.trainer.snapshot()
        more = {
            "started": self.started.isoformat(),
            "total": self._seconds(),
            "peaks": self.peaks,
            **self.prober.metadata(),
        }
        tensors |= self.prober.tensors() | self.losses.tensors()
        return Snapshot(tensors, metadata | more | self.losses.metadata())

    def _restore(self, snapshot: Snapshot) -> None:
        metadata = snapshot.metadata
        with loading():
            self.trainer.restore(snapshot)
            self.prober.restore(snapshot)
            self.losses.restore(snapshot)
            self.started = datetime.fromisoformat(metadata["started"])
            self.seconds_before, self.peaks = metadata["total"], list(metadata["peaks"])

    def keep_state(self, folder: Path, wanted: bool | None) -> str | None:
        """Write the last state beside the record, if it is wanted or small.

        Args:
            folder: Folder of the artefacts.
            wanted: As ``keep_state`` in `execute`.

        Returns:
            SHA-256 of the file; None if the state is not kept.
        """
        path = folder / STATE
        path.unlink(missing_ok=True)  # of an earlier run with --force
        if wanted is False or _reading_whole_stream(self.trainer):
            return None
        description, tensors = last_state(
            self.trainer,
            self.prepared.identity.run_id(),
            scenario_content(self.prepared.spec.scenario),
            [task.name for task in self.prepared.spec.scenario.tasks],
        )
        size = size_of(tensors)
        if wanted is None and size > SMALL:
            self.reporter.message(
                f"note: the last state has {size / 2**20:.0f} MiB and is not kept; with "
                "--keep-state it is, and the run can be extended"
            )
            return None
        return write_state(path, description, tensors)

    def record(self, encoder_digest: str, state_digest: str | None = None) -> RunRecord:
        """Return the record of a run that has ended.

        Args:
            encoder_digest: SHA-256 of the encoder's file.
            state_digest: SHA-256 of the last state's file; None if it is not kept.
        """
        prepared, prober, trainer = self.prepared, self.prober, self.trainer
        images = prober.image_scores(prepared.identity.run_id())
        provenance, parent = provenance_of(prepared.device, self.started), prepared.parent
        packing = prepared.packing_seconds
        if parent is not None:
            packing += parent.record.seconds.packing or 0.0
        return make_record(
            identity=prepared.identity,
            provenance=provenance.model_copy(
                update={"resumed": self.checkpoints.resumed, "matrix_flops": self.matrix_flops}
            ),
            tasks=task_records(prepared, trainer, self.peaks, self.flops, self.matrix_flops),
            parameters=parameter_counts(trainer),
            probes=self.known.probes,
            scores=prober.scores(),
            pixel_statistics=probe_scores(images.labels, images.pixel_statistics),
            image_scores_digest=images.digest(),
            seconds=Seconds(
                packing=packing,
                training=sum(trainer.task_clock.train_seconds),
                probing=prober.seconds,
                total=packing + self._seconds(),
            ),
            flops=self.known.flops,
            spread=prober.spreads,
            skipped=self.known.skipped,
            encoder_digest=encoder_digest,
            pixel_digests=prepared.pixel_digests(),
            init=prepared.init,
            parent=None if parent is None else parent.recorded(provenance),
            unprobed=prober.unprobed(),
            state_digest=state_digest,
            task_encoders=self.kept.digests(),
        )


def _reading_whole_stream(trainer: SelfSupervisedTrainer) -> bool:
    return any(strategy.whole_stream for strategy in trainer.strategies)


def _operations_of_tasks(spec: RunSpec, objective: Objective) -> Flops:
    """Return the operations of an objective's step; the mean over tasks where bands differ."""
    image_size, bands = spec.protocol.image_size, objective.encoder.bands
    if bands is None:
        return count_flops(objective, image_size)
    places = [bands.places(sensor_bands(task)) for task in spec.scenario.tasks]
    counted = {own: count_flops(objective, image_size, own) for own in dict.fromkeys(places)}
    return Flops(*(round(fmean(row)) for row in zip(*(counted[p] for p in places), strict=True)))


def _count_operations(spec: RunSpec, objective: Objective) -> FlopsRecord | None:
    """Return the operations of a step; None if the objective has no counted operation."""
    alone = _operations_of_tasks(spec, objective)
    if not alone.with_gradient:
        return None
    added = count_strategies(spec, objective, alone)
    return FlopsRecord(
        with_gradient=alone.with_gradient,
        without_gradient=alone.without_gradient,
        strategies_with_gradient=added.with_gradient,
        strategies_without_gradient=added.without_gradient,
    )
