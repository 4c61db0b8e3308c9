"""The process of one run of a sweep.

The parent writes the job to standard input as one line of JSON, and keeps that pipe open until the
parent ends. The process reports events as lines of JSON on its original standard output. All
printed text goes to the log. The process imports heavy libraries only after it has started to
watch for the end of its parent.
"""

import os
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TextIO

from pydantic import Field

from rscl_bench.cores import let_threads_sleep
from rscl_bench.errors import ArtefactError, RsclError
from rscl_bench.interruption import Interrupted, raising
from rscl_bench.output import lasting_output
from rscl_bench.spec import Positive, RunSpec, Spec
from rscl_bench.tiles.source import ArchiveSource

#: Seconds in which a run that is to end can finish its step and write a checkpoint.
GRACE = 120.0
_SECONDS = 0.5


class Job(Spec):
    """One run with its archives, device, threads and folder.

    Attributes:
        spec: The run.
        archives: Source of the tiles; the parent has packed the tiles.
        device: Device as in `rscl_bench.engine.device.open_device`.
        threads: Number of CPU threads of the run.
        folder: Folder of the artefacts; its name ends with the run's id.
        force: Whether the run starts from its beginning and ignores checkpoints.
        keep_state: Whether the last state is kept; None for a small one.
        keep_encoders: Whether the encoder after every task is kept.
    """

    spec: RunSpec
    archives: ArchiveSource
    device: str
    threads: Positive
    folder: Path
    force: bool = False
    keep_state: bool | None = None
    keep_encoders: bool = False


class PipeReporter:
    """Sends progress to the parent, at most every half second and at the end of each phase."""

    def __init__(self, pipe: TextIO):
        self._pipe, self._last = pipe, 0.0

    def progress(self, what: str, done: int, total: int) -> None:
        """Send the progress of a phase."""
        now = time.monotonic()
        if done < total and now - self._last < _SECONDS:
            return
        self._last = now
        self._send(Event(phase=what, done=done, total=total))
        if done >= total:
            print(f"{what}: done ({total})", flush=True)

    def message(self, text: str) -> None:
        """Drop the text: messages hold test scores, which tuning must not see."""

    def failed(self, reason: str) -> None:
        """Send the reason for the failure of the run, if the parent still lives."""
        with suppress(OSError):
            self._send(Event(reason=reason[:1000]))

    def _send(self, event: "Event") -> None:
        print(event.model_dump_json(exclude_defaults=True), file=self._pipe, flush=True)


class Event(Spec):
    """One line to the parent: the progress of a phase, or the reason for a failure."""

    phase: str = ""
    done: Annotated[int, Field(ge=0)] = 0
    total: Annotated[int, Field(ge=0)] = 0
    reason: str = ""


def end_with_parent() -> None:
    """Let this process write a checkpoint and end when its parent ends.

    The end of the parent, even by SIGKILL, closes the standard input of this process.
    """

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):
            pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(GRACE)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def run(job: Job, reporter: PipeReporter) -> None:
    """Execute a job.

    Raises:
        RsclError: If the run fails.
    """
    import torch

    from rscl_bench.engine.prepare import open_run
    from rscl_bench.engine.run import execute
    from rscl_bench.progress import silent

    torch.set_num_threads(job.threads)
    opened = open_run(job.spec, job.archives, job.device, silent)
    if not job.folder.name.endswith(opened.identity.run_id()):
        raise ArtefactError(
            "The archives or their tiles changed after the sweep began; start the sweep again."
        )
    execute(
        opened,
        job.folder,
        reporter,
        force=job.force,
        keep_state=job.keep_state,
        keep_encoders=job.keep_encoders,
    )


def main() -> int:
    """Read a job from standard input, execute it, and return the exit status."""
    pipe = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    # os.read does not buffer, so that no byte is lost to the thread that watches the pipe.
    line = b""
    while not line.endswith(b"\n"):
        read = os.read(sys.stdin.fileno(), 1 << 16)
        if not read:
            return 1
        line += read
    let_threads_sleep()
    with raising() as watch, lasting_output():
        end_with_parent()
        try:
            return _execute(line, PipeReporter(pipe))
        except Interrupted as error:
            watch.signal = error.signal
            print(f"interrupted; the run resumes from {error.where or 'its last checkpoint'}")
            return error.status


def _execute(job: bytes, reporter: PipeReporter) -> int:
    """Execute a job, report a failure, and return the exit status."""
    try:
        run(Job.model_validate_json(job, strict=True), reporter)
    except RsclError as error:
        print(f"error: {error}", flush=True)
        reporter.failed(str(error))
        return 1
    except Exception as error:
        traceback.print_exc()
        text = " ".join(str(error).split())
        reporter.failed(f"{type(error).__name__}: {text}" if text else type(error).__name__)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
