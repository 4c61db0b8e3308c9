"""Run records from folders, in groups that may stand in one table."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArtefactError
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.results.tuning import FOLDER
from rscl_bench.spec import Edition


class GroupKey(NamedTuple):
    """What all records of one leaderboard share.

    Attributes:
        scenario: Name.
        version: The scenario's.
        edition: ``real`` or ``sketch``.
        protocol: Name.
        protocol_digest: 8 hexadecimal digits over the resolved protocol, without the defaults of
            objectives and strategies.
        record_format: Layout of the records.
    """

    scenario: str
    version: str
    edition: Edition
    protocol: str
    protocol_digest: str
    record_format: int


class RowKey(NamedTuple):
    """What all seeds of one row share; times of two devices are never averaged."""

    label: str
    precision: str
    device: str


@dataclass(frozen=True)
class LoadedRecord:
    """A record and the file it is from."""

    path: Path
    record: RunRecord

    @property
    def seed(self) -> int:
        """The run's seed."""
        return self.record.identity.seed

    @property
    def group(self) -> GroupKey:
        """Key of the leaderboard that this run belongs to."""
        known = self.record.identity
        # Parameters of objective and strategies are the method's, wherever they were set.
        probes = {probe.probe for probe in self.record.probes}
        defaults: Any = known.protocol.get("defaults", {})
        shared = {
            **known.protocol,
            "defaults": {name: value for name, value in defaults.items() if name in probes},
        }
        return GroupKey(
            known.scenario.name,
            known.scenario.version,
            known.edition,
            known.protocol_name,
            sha256(canonical_json(shared)).hexdigest()[:8],
            self.record.format,
        )

    @property
    def row(self) -> RowKey:
        """Key of the row that this run belongs to."""
        known = self.record.identity
        own = ",".join(f"{k}={_plain(v)}" for k, v in self.method_overrides().items())
        label = f"{known.method.get('name')}[{own}]" if own else str(known.method.get("name"))
        return RowKey(label, known.precision, self.record.provenance.device)

    def method_overrides(self) -> dict[str, Any]:
        """Return the overrides of the method, sorted; they are part of the row's name."""
        overrides = self.record.identity.overrides
        return {name: overrides[name] for name in sorted(overrides) if _of_method(name)}

    def protocol_overrides(self) -> dict[str, Any]:
        """Return the overrides of the protocol, sorted; they make a leaderboard of its own."""
        overrides = self.record.identity.overrides
        return {name: overrides[name] for name in sorted(overrides) if not _of_method(name)}


def collect_groups(sources: Iterable[Path]) -> dict[GroupKey, list[LoadedRecord]]:
    """Return the records below folders, grouped and checked against each other.

    Args:
        sources: Folders, searched for ``*.json`` at any depth, and record files.

    Returns:
        The groups, and the records of each, in an order that does not depend on where files are.

    Raises:
        ArtefactError: If there is no record, one is damaged, or two of one group contradict each
            other: other data under the same names, or the same row and seed twice.
    """
    groups: dict[GroupKey, list[LoadedRecord]] = {}
    for path in record_files(sources):
        loaded = LoadedRecord(path, read_record(path))
        groups.setdefault(loaded.group, []).append(loaded)
    if not groups:
        raise ArtefactError("There is no run record to build a leaderboard from; run a method.")
    return {key: _distinct(_agreeing(groups[key])) for key in sorted(groups)}


def record_files(sources: Iterable[Path]) -> list[Path]:
    """Return the record files of folders, searched through, and of files as they are named.

    Raises:
        ArtefactError: If one does not exist.
    """
    files: set[Path] = set()
    for source in sources:
        if not source.exists():
            raise ArtefactError(f"There is no file or folder '{source}'; give a path to records.")
        found = [source]
        if source.is_dir():  # `tune` stores its choices below the folder of its records
            found = [p for p in source.rglob("*.json") if p.relative_to(source).parts[0] != FOLDER]
        files.update(path.resolve() for path in found)
    return sorted(files)


def _agreeing(loaded: list[LoadedRecord]) -> list[LoadedRecord]:
    """Return the records of a group if all are of the same tasks, probes and data."""
    _demand_equal(loaded, "identity.scenario.digest", lambda r: r.identity.scenario.digest)
    digests = sorted({key for item in loaded for key in item.record.identity.data})
    for name in digests:
        _demand_equal(loaded, f"identity.data.{name}", partial(_digest, name))
    _demand_equal(loaded, "tasks (names, tiles)", lambda r: [(t.name, t.tiles) for t in r.tasks])
    _demand_equal(loaded, "probes", lambda r: r.probes)
    return loaded


def _digest(name: str, record: RunRecord) -> str | None:
    return record.identity.data.get(name)


def _demand_equal(
    loaded: Sequence[LoadedRecord], field: str, value: Callable[[RunRecord], Any]
) -> None:
    """Refuse records that differ in a field.

    Raises:
        ArtefactError: Naming two files and the field.
    """
    first = loaded[0]
    for other in loaded[1:]:
        if value(first.record) != value(other.record):
            raise ArtefactError(
                f"{first.path} and {other.path} differ in the field '{field}', so they cannot "
                "stand on one leaderboard; move one of them away or run it again."
            )


def _distinct(loaded: list[LoadedRecord]) -> list[LoadedRecord]:
    """Return the records by row and seed, exact copies once, contradictions refused."""
    kept: dict[tuple[RowKey, int], LoadedRecord] = {}
    for item in loaded:
        place = (item.row, item.seed)
        earlier = kept.setdefault(place, item)
        if earlier.record != item.record:
            raise ArtefactError(
                f"{earlier.path} and {item.path} are both {item.row.label} with seed {item.seed} "
                f"on {item.row.device}; keep the one that counts and move the other away."
            )
    rows: dict[RowKey, list[LoadedRecord]] = {}
    for (row, _), item in sorted(kept.items(), key=lambda pair: pair[0]):
        rows.setdefault(row, []).append(item)
    for members in rows.values():
        _demand_equal(members, "identity.method", lambda r: r.identity.method)
        _demand_equal(members, "parameters", lambda r: r.parameters)
    return [item for members in rows.values() for item in members]


def _of_method(override: str) -> bool:
    return override.split(".")[0] in ("objective", "strategies")


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
