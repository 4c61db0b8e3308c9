"""Runs in processes of their own, N at a time; one that fails stops no other."""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rscl_bench.cores import usable_cores
from rscl_bench.errors import ArtefactError
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.sweeps import worker
from rscl_bench.sweeps.worker import Event, Job

State = Literal["waiting", "running", "recorded before", "done", "failed"]
# -P: the working directory is never searched for modules.
COMMAND = (sys.executable, "-P", "-m", worker.__name__)
_GRACE = 30.0  # seconds for a step and a checkpoint
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass
class Run:
    """One run of a sweep, and how far it is.

    Attributes:
        label: What tells it from the others of its seed: the method, or the setting of a grid.
        job: What to run.
        record: Of a run that is recorded.
        state: How far it is.
        reason: One sentence on why it failed.
        part: What it does now.
        done: Steps of that part that are done.
        total: All steps of that part.
    """

    label: str
    job: Job
    record: RunRecord | None = None
    state: State = "waiting"
    reason: str = ""
    part: str = ""
    done: int = 0
    total: int = 0
    _parts: list[str] = field(default_factory=list)
    _first: tuple[float, float] = (0.0, 0.0)

    @property
    def name(self) -> str:
        """Label and seed."""
        return f"{self.label} seed {self.job.spec.seed}"

    @property
    def record_path(self) -> Path:
        """Where the record is, or will be."""
        return self.job.folder / "record.json"

    @property
    def log(self) -> Path:
        """Where everything goes that the run's process prints."""
        return self.job.folder / "run.log"

    def take(self, event: Event) -> None:
        """Note what the run's process reported."""
        if event.reason:
            self.reason = event.reason
            return
        self.part, self.done, self.total = event.part, event.done, event.total
        if event.part not in self._parts:
            self._parts.append(event.part)
            if len(self._parts) == 1:
                self._first = (time.monotonic(), self._share())

    def seconds_left(self) -> float | None:
        """Return how long the run will still take if all tasks are alike; None if unknown."""
        started, first = self._first
        share = self._share()
        if share <= first:
            return None
        return (time.monotonic() - started) / (share - first) * (1 - share)

    def _share(self) -> float:
        """Return the share of all training that is done; each part is one task."""
        if not self._parts:
            return 0.0
        return (len(self._parts) - 1 + self.done / self.total) / len(self.job.spec.scenario.tasks)


def share_cores(jobs: int | None, device_type: str) -> tuple[int, int]:
    """Return how many runs go at a time, and how many threads each has.

    By default one run per core on a CPU, which does more in all than one run on all cores, and
    one on a GPU. The threads do not depend on how many runs there are: their number changes the
    last bits of results.

    Args:
        jobs: What the user wants; None for the default.
        device_type: ``cpu`` or ``cuda``.
    """
    cores = usable_cores()
    chosen = jobs or (cores if device_type == "cpu" else 1)
    return chosen, max(1, cores // chosen)


def run_all(runs: Sequence[Run], jobs: int, changed: Callable[[Run], None]) -> None:
    """Run what is waiting, in order, and note in each run how it ended.

    On an interrupt, and on any other exception, all processes are ended and waited for.

    Args:
        runs: The runs.
        jobs: How many at a time.
        changed: Called with each run that began, progressed or ended.
    """
    asyncio.run(_run_all([run for run in runs if run.state == "waiting"], jobs, changed))


async def _run_all(runs: Sequence[Run], jobs: int, changed: Callable[[Run], None]) -> None:
    gate = asyncio.Semaphore(jobs)  # lets through in the order of asking

    async def run_one(run: Run) -> None:
        async with gate:
            try:
                status = await _process(run, changed)
                run.record = _record(run, status)
                run.state = "done"
            except (OSError, ArtefactError) as error:
                run.state, run.reason = "failed", run.reason or str(error)
            changed(run)

    async with asyncio.TaskGroup() as group:
        for run in runs:
            group.create_task(run_one(run))


async def _process(run: Run, changed: Callable[[Run], None]) -> int:
    """Start a run's process, follow it to its end, and return its exit status."""
    environment = {**os.environ, **dict.fromkeys(_THREADS, str(run.job.threads))}
    run.job.folder.mkdir(parents=True, exist_ok=True)
    with run.log.open("wb") as log:
        # A session of its own: the terminal's Ctrl-C is for the parent, which ends the others.
        process = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=PIPE, stdout=PIPE, stderr=log, env=environment, start_new_session=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        run.state = "running"
        changed(run)
        with suppress(BrokenPipeError, ConnectionResetError):  # it died: the status says of what
            process.stdin.write(run.job.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
        async for line in process.stdout:
            if line.endswith(b"\n"):  # else the process died while writing it
                run.take(Event.model_validate_json(line))
                changed(run)
        return await process.wait()
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    """End a process if it still runs, with time to finish its step and write a checkpoint."""
    # Cancelled by the signal, then again by the task group: the process is waited for anyway.
    ended = asyncio.ensure_future(_ended(process))
    while not ended.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(ended)


async def _ended(process: Process) -> None:
    with suppress(ProcessLookupError):
        if process.returncode is None:
            process.terminate()
    try:
        await asyncio.wait_for(process.wait(), _GRACE)
    except TimeoutError:  # files are whole at any moment
        process.kill()
    assert process.stdin is not None
    process.stdin.close()  # not before: it ends the process at once
    await process.communicate()


def _record(run: Run, status: int) -> RunRecord:
    """Return what a run's process left.

    Raises:
        ArtefactError: If that is no record.
    """
    if status == 0:
        return read_record(run.record_path)
    if status == -signal.SIGKILL:
        raise ArtefactError(
            "The process was killed (SIGKILL), as happens when memory runs out; use fewer --jobs."
        )
    if status < 0:
        raise ArtefactError(f"The process died of {signal.Signals(-status).name}; see its log.")
    raise ArtefactError(f"The process ended with exit status {status}; see its log.")
