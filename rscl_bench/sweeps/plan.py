"""Assign a folder to every run of a sweep, and check all runs before the first run starts."""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from rscl_bench.engine.build import build_objective, build_strategies
from rscl_bench.engine.memory import memory_for
from rscl_bench.engine.prepare import PreparedRun
from rscl_bench.results.folders import run_folder
from rscl_bench.results.record import read_record
from rscl_bench.sweeps.pool import Run
from rscl_bench.sweeps.selection import PlannedRun
from rscl_bench.sweeps.worker import Job
from rscl_bench.tiles.source import ArchiveSource


def plan(
    planned: Iterable[PlannedRun],
    opened: PreparedRun,
    archives: ArchiveSource,
    threads: int,
    out: Path,
    force: bool,
    known: Mapping[str, Path],
    keep_state: bool | None = None,
    keep_encoders: bool = False,
) -> list[Run]:
    """Return the runs of a sweep; runs that have a record are marked as recorded.

    Every method that will run is built once, so that a mistake is found before the first run.

    Args:
        planned: The runs; all have the same scenario and protocol.
        opened: A prepared run of the sweep; all runs read the tiles of this run.
        archives: As in `Job`.
        threads: As in `Job`.
        out: Folder for records.
        force: Whether recorded runs are run again.
        known: Records elsewhere by the id of the run; these runs are not run.
        keep_state: As in `Job`.
        keep_encoders: As in `Job`.

    Raises:
        RsclError: If a record is damaged, or a method cannot be built.
    """
    runs = []
    for label, spec in planned:
        prepared = opened.with_spec(spec)
        job = Job(
            spec=spec,
            archives=archives,
            device=str(prepared.device.torch),
            threads=threads,
            folder=run_folder(out, prepared.identity),
            force=force,
            keep_state=keep_state,
            keep_encoders=keep_encoders,
        )
        run = Run(label, job)
        elsewhere = known.get(prepared.identity.run_id(), run.record_path)
        recorded = run.record_path if run.record_path.is_file() else elsewhere
        if recorded.is_file() and not force:
            run.state, run.record = "recorded before", read_record(recorded)
        runs.append(run)
    first = runs[0].job.spec.seed  # the seed does not decide whether a method can be built
    for run in runs:
        if run.state == "waiting" and run.job.spec.seed == first:
            with memory_for(f"to build {run.label}", "use a smaller backbone or smaller heads"):
                objective = build_objective(run.job.spec, torch.device("cpu"))
                build_strategies(run.job.spec, objective, torch.device("cpu"))
    return runs
