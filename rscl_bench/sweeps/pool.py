"""Execute every run of a sweep in its own process, N runs at a time.

A failed run does not stop the other runs.
"""

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from rscl_bench.cores import THREAD_VARIABLES, usable_cores
from rscl_bench.errors import ArtefactError
from rscl_bench.interruption import Interrupted, changeable, exit_now
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.sweeps import worker
from rscl_bench.sweeps.worker import GRACE, Event, Job

State = Literal["waiting", "running", "recorded before", "done", "failed"]
# With -P, Python does not import modules from the working directory.
COMMAND = (sys.executable, "-P", "-m", worker.__name__)


@dataclass
class Run:
    """One run of a sweep, with its state and progress.

    Attributes:
        label: The method, or the setting of a grid; runs of one seed have different labels.
        job: The run and its resources.
        record: The record of a finished run.
        state: State of the run.
        reason: Why the run failed, in one sentence.
        phase: Name of the current phase, such as the training of a task.
        done: Number of finished steps of the phase.
        total: Number of all steps of the phase.
    """

    label: str
    job: Job
    record: RunRecord | None = None
    state: State = "waiting"
    reason: str = ""
    phase: str = ""
    done: int = 0
    total: int = 0
    _phases: list[str] = field(default_factory=list)
    _started: tuple[float, float] = (0.0, 0.0)  # time of the first event, and progress then

    @property
    def name(self) -> str:
        """Label and seed."""
        return f"{self.label} seed {self.job.spec.seed}"

    @property
    def record_path(self) -> Path:
        """Path of the record, which may not exist yet."""
        return self.job.folder / "record.json"

    @property
    def log(self) -> Path:
        """File for everything that the run's process prints."""
        return self.job.folder / "run.log"

    def update(self, event: Event) -> None:
        """Update state and progress with an event of the run's process."""
        if event.reason:
            self.reason = event.reason
            return
        self.phase, self.done, self.total = event.phase, event.done, event.total
        if event.phase not in self._phases:
            self._phases.append(event.phase)
            if len(self._phases) == 1:
                self._started = (time.monotonic(), self._progress())

    def seconds_left(self) -> float | None:
        """Estimate the remaining seconds, as if all tasks took equally long; None if unknown."""
        started, progress_then = self._started
        progress = self._progress()
        if progress <= progress_then:
            return None
        return (time.monotonic() - started) / (progress - progress_then) * (1 - progress)

    def _progress(self) -> float:
        """Return the finished share of all training; each phase is one task."""
        if not self._phases:
            return 0.0
        finished = len(self._phases) - 1 + self.done / self.total
        return finished / len(self.job.spec.scenario.tasks)


def share_cores(jobs: int | None, threads: int | None, device_type: str) -> tuple[int, int]:
    """Return the number of runs that train at a time, and the number of threads of each run.

    The default is one run on a GPU, and one run per core on a CPU: together, these runs train more
    images a second than one run on all cores. The number of threads changes the last bits of
    results, and therefore does not depend on the number of waiting runs.

    Args:
        jobs: Number of runs at a time that the user asks for; None for the default.
        threads: Number of threads of each run that the user asks for; None for the default.
        device_type: ``cpu`` or ``cuda``.
    """
    cores = usable_cores()
    chosen = jobs or (max(1, cores // (threads or 1)) if device_type == "cpu" else 1)
    return chosen, threads or max(1, cores // chosen)


def run_all(runs: Sequence[Run], jobs: int, changed: Callable[[Run], None]) -> None:
    """Execute all waiting runs in their order, and store the result in each run.

    On a signal or any exception, all runs write a checkpoint and end before the function returns. A
    second signal ends this process at once, and the processes of the runs then end by themselves.

    Args:
        runs: The runs.
        jobs: Number of runs at a time.
        changed: Called with each run that started, progressed or ended.

    Raises:
        Interrupted: If a signal came.
    """
    waiting = [run for run in runs if run.state == "waiting"]
    asyncio.run(_until_a_signal(waiting, jobs, changed))


async def _until_a_signal(runs: Sequence[Run], jobs: int, changed: Callable[[Run], None]) -> None:
    work = asyncio.ensure_future(_run_all(runs, jobs, changed))
    came: list[int] = []

    def stop(number: int) -> None:
        if came:
            exit_now(number)
        came.append(number)
        work.cancel()

    with _signals_call(stop):
        try:
            await work
        except asyncio.CancelledError:
            if not came:
                raise
        if came:
            raise Interrupted(came[0])


@contextmanager
def _signals_call(stop: Callable[[int], None]) -> Iterator[None]:
    """Call a function with the number of each signal that comes, between two steps of the loop.

    An exception in a handler of its own could come within a run's own ``finally``.
    """
    loop, before = asyncio.get_running_loop(), changeable()
    for number in before:
        loop.add_signal_handler(number, stop, number)
    try:
        yield
    finally:
        for number, earlier in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, earlier)


async def _run_all(runs: Sequence[Run], jobs: int, changed: Callable[[Run], None]) -> None:
    gate = asyncio.Semaphore(jobs)  # the semaphore is fair, so runs start in their order

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
    """Start the process of a run, note its events until it ends, and return its exit status."""
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(run.job.threads))}
    run.job.folder.mkdir(parents=True, exist_ok=True)
    with run.log.open("wb") as log:
        # A new session keeps the terminal's Ctrl-C from the child: only the parent receives it.
        process = await asyncio.create_subprocess_exec(
            *COMMAND, stdin=PIPE, stdout=PIPE, stderr=log, env=environment, start_new_session=True
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        run.state = "running"
        changed(run)
        # A broken pipe means that the process died; the exit status says why.
        with suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(run.job.model_dump_json().encode() + b"\n")
            await process.stdin.drain()
        async for line in process.stdout:
            if line.endswith(b"\n"):  # an incomplete line means that the process died
                run.update(Event.model_validate_json(line))
                changed(run)
        return await process.wait()
    finally:
        await _end(process)


async def _end(process: Process) -> None:
    """End a process, with time for the process to finish its step and write a checkpoint."""
    # The signal cancels this task, and the task group cancels this task again: keep waiting.
    ended = asyncio.ensure_future(_ended(process))
    while not ended.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(ended)


async def _ended(process: Process) -> None:
    with suppress(ProcessLookupError):
        if process.returncode is None:
            process.terminate()
    try:
        await asyncio.wait_for(process.wait(), GRACE)
    except TimeoutError:  # killing is safe: all files are written atomically
        process.kill()
    assert process.stdin is not None
    process.stdin.close()  # a closed standard input ends the process at once, so this comes last
    await process.communicate()


def _record(run: Run, status: int) -> RunRecord:
    """Return the record that a run's process wrote.

    Raises:
        ArtefactError: If the process failed, or its record is not valid.
    """
    if status == 0:
        return read_record(run.record_path)
    if status == -signal.SIGKILL:
        raise ArtefactError(
            "The process was killed (SIGKILL), as happens when memory runs out; use fewer --jobs."
        )
    if status < 0:
        raise ArtefactError(
            f"The process was ended by {signal.Signals(-status).name}; see its log."
        )
    raise ArtefactError(f"The process ended with exit status {status}; see its log.")
