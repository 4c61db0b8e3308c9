"""The finished run that an extended run continues: its record, image scores and last state."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import rscl_bench
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.engine.checkpointing.state import Snapshot
from rscl_bench.engine.probing import EarlierScores
from rscl_bench.engine.state_file import FILE, LastState, read_state
from rscl_bench.errors import ArchiveError, ArtefactError, SpecError
from rscl_bench.results.image_scores import ImageScores, image_scores_path, read_image_scores
from rscl_bench.results.reading import LARGEST, read_regular
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import (
    ParentRecord,
    ParentState,
    Provenance,
    RunRecord,
    probe_key,
    task_key,
)
from rscl_bench.spec import Probe, Scenario, identity
from rscl_bench.tiles.source import ArchiveSource
from rscl_bench.tiles.store import TileStore


@dataclass(frozen=True)
class ParentRun:
    """A finished run that can be extended.

    Attributes:
        path: File of the record.
        record: The record.
        record_digest: SHA-256 of the record's file.
        images: Scores of all images.
        state: The last state.
    """

    path: Path
    record: RunRecord
    record_digest: str
    images: ImageScores
    state: LastState

    @property
    def tasks(self) -> int:
        """Number of tasks that the run was trained on."""
        return len(self.record.tasks)

    def stores(self) -> list[TileStore]:
        """Return a store of the kept tiles of every task."""
        return self.state.stores(self.path.with_name(FILE))

    def key(self) -> ParentState:
        """Return the field ``identity.parent`` of a run that continues this run."""
        return ParentState(run=self.record.id, state=self.state.digest, tasks=self.tasks)

    def recorded(self, provenance: Provenance) -> ParentRecord:
        """Return the field ``parent`` of the record of a run that continues this run.

        Args:
            provenance: Machine and software of that run.
        """
        return ParentRecord(
            record=self.record_digest,
            seconds=self.record.seconds.total,
            changed=changes(self.record.provenance, provenance),
        )

    def scores(self) -> EarlierScores:
        """Return the scores that a run that continues this run begins with."""
        return EarlierScores(self.images, self.record.spread or (), self.record.seconds.probing)

    def snapshot(self) -> Snapshot:
        """Return the state that the next task depends on."""
        tasks = self.record.tasks
        metadata = {
            "task": self.tasks,
            "step": 0,
            "steps_taken": [task.steps for task in tasks],
            "train_seconds": [task.train_seconds for task in tasks],
            "waited_seconds": [task.waited_seconds for task in tasks],
            "final_loss": [task.final_loss for task in tasks],
        }
        return Snapshot(self.state.tensors, metadata)

    def data(self, scenario: Scenario) -> dict[str, str]:
        """Return the digests of the data that a longer scenario shares with this run."""
        return _shared(self.record.identity.data, scenario)

    def pixel_digests(self, scenario: Scenario) -> dict[str, str]:
        """Return the digests of the packed pixels that a longer scenario shares with this run."""
        return _shared(self.record.pixel_digests, scenario)

    def has_probe(self, name: str) -> bool:
        """Return whether this run was evaluated on a probe."""
        return any(probe.name == name for probe in self.record.probes)

    def gone(self, probes: Sequence[Probe], archives: ArchiveSource) -> list[str]:
        """Return the names of this run's probes whose archive is not in the data root.

        Args:
            probes: Probes of the longer scenario.
            archives: Where the tiles come from.
        """
        return [
            probe.name
            for probe in probes
            if self.has_probe(probe.name)
            and not (archives.root / adapter_class(probe.dataset, probe.options).folder).is_dir()
        ]

    def check_data(self, found: dict[str, str], pixels: dict[str, str]) -> None:
        """Refuse probe tiles that are not those of this run: scores would not compare.

        Args:
            found: Digests of the opened data, by key of ``identity.data``.
            pixels: Digests of the opened pixels.

        Raises:
            ArchiveError: If a digest differs.
        """
        for name, digest in self.record.identity.data.items():
            if found.get(name, digest) != digest:
                raise ArchiveError(
                    f"The archive of '{name}' has changed since the run in {self.path.parent}; "
                    "restore the archive, or move it away to leave its probes out."
                )
        for name, digest in self.record.pixel_digests.items():
            if pixels.get(name, digest) != digest:
                raise ArchiveError(
                    f"The pixels of '{name}' are not those of the run in {self.path.parent}, "
                    "because other versions of the image libraries decoded them; install the "
                    "versions in the run's provenance."
                )


def read_parent(run: Path) -> ParentRun:
    """Read a finished run with its last state.

    Args:
        run: The run's folder, or its record.

    Raises:
        ArtefactError: If a file is missing, damaged, or not of this run.
        SpecError: If another version of this package made the run.
    """
    path = run / "record.json" if run.is_dir() else run
    record = read_record(path)
    file = path.with_name(FILE)
    if record.identity.code != rscl_bench.__version__:
        raise SpecError(
            f"The run in {path.parent} was made with rscl-bench {record.identity.code}, and this "
            f"is {rscl_bench.__version__}, which may train differently; extend it with its own "
            "version, or run it again."
        )
    if record.state_digest is None:
        raise ArtefactError(
            f"The run in {path.parent} kept no state to go on from; run it again with "
            "--keep-state --force."
        )
    state = read_state(file)
    if state.digest != record.state_digest:
        raise ArtefactError(
            f"{file} is not the state of its run: its SHA-256 is not the record's 'state_digest'; "
            "restore the file, or run again with --keep-state --force."
        )
    described = state.description
    if (described.run, identity(described.scenario)) != (
        record.id,
        record.identity.scenario.digest,
    ):
        raise ArtefactError(f"{file} is of another run than {path}; restore the run's own files.")
    images = read_image_scores(path, record)
    if images is None:
        raise ArtefactError(
            f"{image_scores_path(path)} is missing, and the record of the longer stream holds its "
            "scores; restore the file."
        )
    digest = sha256(read_regular(path, LARGEST)).hexdigest()
    return ParentRun(path, record, digest, images, state)


def changes(before: Provenance, now: Provenance) -> tuple[str, ...]:
    """Return what differs in machine and software and may change last bits, a clause each."""
    old, new = _environment(before), _environment(now)
    return tuple(
        f"{name}: {value} before, {new.get(name)} now"
        for name, value in old.items()
        if value != new.get(name)
    )


def tell_changes(provenance: Provenance, parent: ParentRun, message: Callable[[str], None]) -> None:
    """Print a note for each difference of machine and software to the parent."""
    for line in changes(parent.record.provenance, provenance):
        message(f"note: the last bits may differ from a stream run in one go, since {line}")


def _environment(provenance: Provenance) -> dict[str, str]:
    machine = provenance.model_dump(
        mode="json", exclude={"started", "resumed", "versions", "matrix_flops"}
    )
    return {name: str(value) for name, value in {**machine, **provenance.versions}.items()}


def _shared(digests: dict[str, str], scenario: Scenario) -> dict[str, str]:
    keys = {task_key(task.name) for task in scenario.tasks}
    for probe in scenario.probes:
        keys |= {probe_key(probe.name, role) for role in probe.splits()}
    return {name: digest for name, digest in digests.items() if name in keys}
