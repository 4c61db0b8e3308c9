"""Decides when a run writes a checkpoint, and whether a run may resume from one."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError

from rscl_bench.engine.checkpointing.files import (
    FOLDER,
    latest_metadata,
    read_checkpoint,
    remove_checkpoints,
    write_checkpoint,
)
from rscl_bench.engine.checkpointing.signals import Interruption
from rscl_bench.engine.checkpointing.state import Snapshot
from rscl_bench.errors import ArtefactError
from rscl_bench.interruption import Interrupted
from rscl_bench.results.differences import first_difference
from rscl_bench.results.schema import Identity, Provenance, Resumption
from rscl_bench.spec import first_problem

#: Seconds between checkpoints within a task.
INTERVAL = 600.0
_SHARE = 0.02  # largest share of the time that the writing of checkpoints takes


class _Facts(BaseModel):
    """What a checkpoint says of its run, as far as the decision to resume needs it."""

    identity: dict[str, Any]
    pixels: dict[str, str]
    environment: dict[str, str]
    resumed: list[str]
    task: Annotated[int, Field(ge=0)]
    step: Annotated[int, Field(ge=0)]


class Checkpoints:
    """Writes the checkpoints of a run, by time and on a signal, and reads the latest.

    Attributes:
        folder: Folder of the checkpoints.
        resumed: Where the run was resumed, once for every interruption.
        interruption: The signals that ask the run to end.
    """

    def __init__(
        self,
        folder: Path,
        identity: Identity,
        pixels: Mapping[str, str],
        provenance: Provenance,
        interval: float,
        state: Callable[[], Snapshot],
        message: Callable[[str], None],
        enabled: bool,
    ):
        """Prepare the writing of checkpoints.

        Args:
            folder: Folder of the run.
            identity: The run's identity; a checkpoint of another identity is refused.
            pixels: Digests of the packed pixels; a checkpoint of other pixels is refused.
            provenance: Where and with what the run is made; the record lists changes on resuming.
            interval: Seconds between checkpoints within a task; 0 for a checkpoint after every
                step. The interval grows where writing would take over 2 % of the time.
            state: Returns the state that the rest of the run depends on.
            message: Prints one line.
            enabled: Whether checkpoints are written at all.
        """
        self.folder = folder / FOLDER
        self.resumed: tuple[Resumption, ...] = ()
        self._identity = identity.model_dump(mode="json")
        self._pixels = dict(pixels)
        self._environment = _environment(provenance)
        self._interval, self._state, self._message = interval, state, message
        self._enabled = enabled
        self._written, self._cost = time.monotonic(), 0.0
        self.interruption = Interruption()
        self._ending: int | None = None

    def latest(self) -> Snapshot | None:
        """Return the state to resume from, or None if the run starts from its beginning.

        Raises:
            ArtefactError: If the checkpoint is of another run, or lacks facts.
        """
        snapshot = read_checkpoint(self.folder, self._message)
        if snapshot is None:
            self._refuse_a_changed_run()
            return None
        facts, earlier = self._facts(snapshot)
        field = first_difference("identity", facts.identity, self._identity)
        if field:
            raise ArtefactError(
                f"The checkpoint in {self.folder} is of another run: '{field}' differs; give that "
                "run its own folder, or start over with --force."
            )
        field = first_difference("tiles", facts.pixels, self._pixels)
        if field:
            raise ArtefactError(
                f"The checkpoint in {self.folder} is of other pixels: '{field}' differs, because "
                "other versions of the image libraries decoded the archive; restore the packed "
                "tiles or these versions, or start over with --force."
            )
        changed = tuple(
            f"{name}: {before} before, {self._environment.get(name)} now"
            for name, before in facts.environment.items()
            if before != self._environment.get(name)
        )
        where = Resumption(task=facts.task, step=facts.step, changed=changed)
        self.resumed = (*earlier, where)
        self._message(f"resuming after step {where.step} of task {where.task + 1}")
        for line in changed:
            self._message(f"note: the last bits of results may differ, since {line}")
        return snapshot

    def _facts(self, snapshot: Snapshot) -> tuple[_Facts, list[Resumption]]:
        try:
            facts = _Facts.model_validate(snapshot.metadata, strict=True)
            return facts, [Resumption.model_validate_json(text) for text in facts.resumed]
        except ValidationError as error:
            raise ArtefactError(
                f"The checkpoint in {self.folder} is incomplete: {first_problem(error)}; start "
                "over with --force."
            ) from error

    def _refuse_a_changed_run(self) -> None:
        """Refuse to start a run anew that was interrupted with other tiles or other code."""
        for folder in sorted(self.folder.parent.parent.glob(f"*/{FOLDER}")):
            metadata = latest_metadata(folder)
            found = {} if metadata is None else metadata.get("identity")
            if not _same_request(found, self._identity):
                continue
            field = first_difference("identity", found, self._identity)
            raise ArtefactError(
                f"This run was interrupted in {folder.parent} and cannot resume, because "
                f"'{field}' has changed since. Restore the earlier value, or start over with "
                "--force."
            )

    def write(self) -> None:
        """Write a checkpoint now, without a check of the file if the run is about to end."""
        if not self._enabled:
            return
        started = time.monotonic()
        tensors, metadata = self._state()
        metadata |= {
            "identity": self._identity,
            "pixels": self._pixels,
            "environment": self._environment,
            "resumed": [resumption.model_dump_json() for resumption in self.resumed],
        }
        write_checkpoint(self.folder, Snapshot(tensors, metadata), fast=self._ending is not None)
        self._written = time.monotonic()
        self._cost = self._written - started

    def wanted(self) -> bool:
        """Return whether a checkpoint is due, by time or by a signal."""
        self._ending = self.interruption.signal
        return self._enabled and (self._is_time() or self._ending is not None)

    def after_step(self, task: int, step: int, steps: int) -> None:
        """End the run if a signal came and the checkpoint that was `wanted` is written.

        Raises:
            Interrupted: If a signal came.
        """
        if self._ending is not None:
            where = f"step {step} of task {task + 1}" if self._enabled else "the beginning"
            raise Interrupted(self._ending, where)
        self.interruption.stepping = step < steps
        if not self.interruption.stepping and self.interruption.signal is not None:
            raise Interrupted(self.interruption.signal, "the last checkpoint")

    def _is_time(self) -> bool:
        if not self._interval:
            return True
        return time.monotonic() - self._written >= max(self._interval, self._cost / _SHARE)

    def remove(self) -> None:
        """Remove all checkpoints, because the run is recorded or starts over."""
        remove_checkpoints(self.folder)


def _same_request(found: Any, identity: dict[str, Any]) -> bool:
    """Return whether a checkpoint's identity is of the run that the user requested."""
    try:
        return _requested(found) == _requested(identity)
    except (AttributeError, KeyError, TypeError):  # not written by this package
        return False


def _requested(identity: dict[str, Any]) -> dict[str, Any]:
    """Return the part of an identity that the user requested.

    Without the values that a run resolves: digests of data, version of the code, precision.
    """
    resolved = ("data", "code", "precision")
    requested = {name: value for name, value in identity.items() if name not in resolved}
    return {**requested, "scenario": identity["scenario"]["name"]}


def _environment(provenance: Provenance) -> dict[str, str]:
    """Return the properties of machine and software that may change the last bits of a result."""
    machine = provenance.model_dump(mode="json", exclude={"started", "resumed", "versions"})
    versions = provenance.versions
    return {name: str(value) for name, value in {**machine, **versions}.items()}
