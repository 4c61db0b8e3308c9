"""Goes on with a run that was interrupted, and keeps the checkpoints that it takes."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rscl_bench.engine.checkpointing.files import (
    FOLDER,
    latest_metadata,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from rscl_bench.engine.checkpointing.signals import Interrupted, Interruption
from rscl_bench.engine.checkpointing.state import Snapshot
from rscl_bench.errors import ArtefactError
from rscl_bench.results.differences import first_difference
from rscl_bench.results.schema import Identity, Provenance, Resumption

#: Seconds between checkpoints within a task.
INTERVAL = 600.0
_SHARE = 0.02  # of the time may go into writing them


class Checkpoints:
    """Writes a run's checkpoints, by time and when a signal asks for one, and reads the latest.

    Attributes:
        folder: Where they are.
        resumed: How often the run was resumed, and where.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        provenance: Provenance,
        interval: float,
        state: Callable[[], Snapshot],
        message: Callable[[str], None],
    ):
        """Keep what is needed.

        Args:
            folder: The run's.
            identity: What the run is; a checkpoint of another one is refused.
            provenance: Where it runs; what is different on resuming is recorded.
            interval: Seconds between checkpoints within a task, more where writing them would take
                over 2 % of the time; 0 for one after every step.
            state: Gives all that the rest of the run depends on.
            message: Told of what happens.
        """
        self.folder = folder / FOLDER
        self.resumed: tuple[Resumption, ...] = ()
        self._identity = identity.model_dump(mode="json")
        self._environment = _environment(provenance)
        self._interval, self._state, self._message = interval, state, message
        self._written, self._cost = time.monotonic(), 0.0
        self.interruption = Interruption()
        self._ending: int | None = None

    def latest(self) -> Snapshot | None:
        """Return what the run goes on from, None if it begins.

        Raises:
            ArtefactError: If the checkpoint is of another run.
        """
        snapshot = read_checkpoint(self.folder, self._message)
        if snapshot is None:
            self._refuse_a_changed_run()
            return None
        metadata = snapshot.metadata
        field = first_difference("identity", metadata["identity"], self._identity)
        if field:
            raise ArtefactError(
                f"The checkpoint in {self.folder} is of another run: '{field}' differs; give that "
                "run its own folder, or start over with --force."
            )
        changed = tuple(
            f"{name}: {before} before, {self._environment.get(name)} now"
            for name, before in metadata["environment"].items()
            if before != self._environment.get(name)
        )
        earlier = [Resumption.model_validate_json(text) for text in metadata["resumed"]]
        where = Resumption(task=metadata["task"], step=metadata["step"], changed=changed)
        self.resumed = (*earlier, where)
        self._message(f"going on after step {where.step} of task {where.task + 1}")
        for line in changed:
            self._message(f"note: the last bits of results may differ, since {line}")
        return snapshot

    def _refuse_a_changed_run(self) -> None:
        """Refuse to begin where the same run was interrupted on other tiles or by other code."""
        for folder in sorted(self.folder.parent.parent.glob(f"*/{FOLDER}")):
            metadata = latest_metadata(folder)
            if metadata is None or _asked(metadata["identity"]) != _asked(self._identity):
                continue
            field = first_difference("identity", metadata["identity"], self._identity)
            raise ArtefactError(
                f"This run was interrupted and is in {folder.parent}, but cannot go on: '{field}' "
                "differs since. Bring back what it was, or start over with --force."
            )

    def write(self) -> None:
        """Write a checkpoint now, in haste if the run is about to end."""
        started = time.monotonic()
        tensors, metadata = self._state()
        metadata |= {
            "identity": self._identity,
            "environment": self._environment,
            "resumed": [one.model_dump_json() for one in self.resumed],
        }
        write_checkpoint(self.folder, Snapshot(tensors, metadata), self._ending is not None)
        self._written = time.monotonic()
        self._cost = self._written - started

    def wanted(self) -> bool:
        """Return whether to write one now: it is time, or the run was asked to end."""
        self._ending = self.interruption.asked
        return self._due() or self._ending is not None

    def after_step(self, task: int, step: int, steps: int) -> None:
        """End the run if it was asked to and the checkpoint that was `wanted` is written.

        Raises:
            Interrupted: If it was.
        """
        if self._ending is not None:
            raise Interrupted(self._ending, f"step {step} of task {task + 1}")
        self.interruption.stepping = step < steps
        if not self.interruption.stepping and self.interruption.asked is not None:
            raise Interrupted(self.interruption.asked, "the last checkpoint")

    def _due(self) -> bool:
        if not self._interval:
            return True
        return time.monotonic() - self._written >= max(self._interval, self._cost / _SHARE)

    def remove(self) -> None:
        """Remove all checkpoints: the run is recorded, or starts over."""
        remove_checkpoints(self.folder)


def _asked(identity: dict[str, Any]) -> dict[str, Any]:
    """Return what a user asks for, without what that turned out to be."""
    turned_out = ("data", "code", "precision")
    asked = {name: value for name, value in identity.items() if name not in turned_out}
    return {**asked, "scenario": identity["scenario"]["name"]}


def _environment(provenance: Provenance) -> dict[str, str]:
    """Return what may change the last bits of a result."""
    metadata = provenance.model_dump(mode="json", exclude={"started", "resumed", "versions"})
    versions = provenance.versions
    return {name: str(value) for name, value in {**metadata, **versions}.items()}
