"""Loads run records and groups them by leaderboard."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArtefactError
from rscl_bench.results.agreement import Filed, disagreements
from rscl_bench.results.files import find_records
from rscl_bench.results.record import read_record
from rscl_bench.results.schema import RunRecord
from rscl_bench.spec import Edition, edition_folder, is_method_key


class GroupKey(NamedTuple):
    """Key of a leaderboard: values that all its records share.

    Attributes:
        scenario: Name of the scenario.
        version: Version of the scenario.
        edition: ``real`` or ``sketch``.
        protocol: Name of the protocol.
        protocol_digest: Hash of the resolved protocol, 8 hexadecimal digits. The defaults of
            objectives and strategies are not hashed.
        record_format: Version of the records' layout.
    """

    scenario: str
    version: str
    edition: Edition
    protocol: str
    protocol_digest: str
    record_format: int


class RowKey(NamedTuple):
    """Key of a row: values that all its runs share.

    The device is part of the key, since times of two devices are never averaged.

    Attributes:
        method: Name of the recipe, with overrides of the method in brackets.
        precision: ``fp32`` or ``bf16``.
        device: Full name of the device.
    """

    method: str
    precision: str
    device: str


@dataclass(frozen=True)
class LoadedRecord:
    """A record and its file."""

    path: Path
    record: RunRecord

    @property
    def seed(self) -> int:
        """Seed of the run."""
        return self.record.identity.seed


def group_key(record: RunRecord) -> GroupKey:
    """Return the key of a run's leaderboard."""
    identity = record.identity
    # Parameters of objectives and strategies belong to the method, even if the protocol sets them.
    probes = {probe.probe for probe in record.probes}
    defaults: Any = identity.protocol.get("defaults", {})
    shared = {
        **identity.protocol,
        "defaults": {name: value for name, value in defaults.items() if name in probes},
    }
    return GroupKey(
        identity.scenario.name,
        identity.scenario.version,
        identity.edition,
        identity.protocol_name,
        sha256(canonical_json(shared)).hexdigest()[:8],
        record.format,
    )


def row_key(record: RunRecord) -> RowKey:
    """Return the key of a run's row."""
    identity = record.identity
    name = str(identity.method.get("name"))
    overrides = ",".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for key, value in sorted(identity.overrides.items())
        if is_method_key(key)
    )
    method = "+".join([f"{name}[{overrides}]" if overrides else name, *identity.plugins])
    return RowKey(method, identity.precision, record.provenance.device)


def protocol_overrides(record: RunRecord) -> dict[str, Any]:
    """Return the ``--set`` assignments of the protocol, sorted by key."""
    overrides = record.identity.overrides
    return {key: overrides[key] for key in sorted(overrides) if not is_method_key(key)}


def group_folder(key: GroupKey, loaded: Iterable[LoadedRecord]) -> Path:
    """Return ``<scenario>-v<version>[-sketch]/<protocol>[-<digest8>]``.

    The folder has the digest of the resolved protocol if all records override the protocol.
    """
    scenario = edition_folder(f"{key.scenario}-v{key.version}", key.edition)
    overridden = all(protocol_overrides(item.record) for item in loaded)
    return Path(scenario) / (
        f"{key.protocol}-{key.protocol_digest}" if overridden else key.protocol
    )


def collect_groups(sources: Iterable[Path]) -> dict[GroupKey, list[LoadedRecord]]:
    """Load the records below folders, group them, and check each group for contradictions.

    Args:
        sources: Folders and record files. Folders are searched for ``*.json`` at any depth.

    Returns:
        The records of each group. The order of groups and records does not depend on the paths of
        the files.

    Raises:
        ArtefactError: If there is no record, a record is damaged, or two records of one group
            contradict each other. Contradicting records have different data under equal names,
            or different results for one row and seed.
    """
    groups: dict[GroupKey, list[LoadedRecord]] = {}
    for path in find_records(sources).records:
        loaded = LoadedRecord(path, read_record(path))
        groups.setdefault(group_key(loaded.record), []).append(loaded)
    if not groups:
        raise ArtefactError("There is no run record to build a leaderboard from; run a method.")
    for loaded_records in groups.values():
        _check_same_data(loaded_records)
    disagreement = next(
        disagreements(Filed(i.path, i.record) for loaded in groups.values() for i in loaded), None
    )
    if disagreement:
        raise ArtefactError(disagreement.sentence)
    return {key: _distinct(groups[key]) for key in sorted(groups)}


def _check_same_data(loaded: Sequence[LoadedRecord]) -> None:
    """Refuse records with different tasks, probes or data.

    Raises:
        ArtefactError: If two records differ.
    """
    _check_equal(loaded, "identity.scenario.digest", lambda r: r.identity.scenario.digest)
    for name in sorted({key for item in loaded for key in item.record.identity.data}):
        _check_equal(loaded, f"identity.data.{name}", partial(_digest, name))
    _check_equal(loaded, "tasks (names, tiles)", lambda r: [(t.name, t.tiles) for t in r.tasks])
    _check_equal(loaded, "probes", lambda r: r.probes)


def _digest(name: str, record: RunRecord) -> str | None:
    return record.identity.data.get(name)


def _check_equal(
    loaded: Sequence[LoadedRecord], field: str, value: Callable[[RunRecord], Any]
) -> None:
    """Refuse records with different values of a field.

    Raises:
        ArtefactError: If two records differ. The message names both files and the field.
    """
    first = loaded[0]
    for other in loaded[1:]:
        if value(first.record) != value(other.record):
            raise ArtefactError(
                f"{first.path} and {other.path} differ in the field '{field}', so they cannot "
                "stand on one leaderboard; move one of them away or run it again."
            )


def _distinct(loaded: Sequence[LoadedRecord]) -> list[LoadedRecord]:
    """Sort records by row and seed, drop exact copies, and refuse contradictions.

    Raises:
        ArtefactError: If two records of one row and seed differ, or two records of one row differ
            in method or number of parameters.
    """
    kept: dict[tuple[RowKey, int], LoadedRecord] = {}
    for item in loaded:
        row = row_key(item.record)
        earlier = kept.setdefault((row, item.seed), item)
        if earlier.record != item.record:
            raise ArtefactError(
                f"{earlier.path} and {item.path} are both {row.method} with seed {item.seed} "
                f"on {row.device}; keep the one that counts and move the other away."
            )
    rows: dict[RowKey, list[LoadedRecord]] = {}
    for row, seed in sorted(kept):
        rows.setdefault(row, []).append(kept[row, seed])
    for members in rows.values():
        _check_equal(members, "identity.method", lambda r: r.identity.method)
        _check_equal(members, "parameters", lambda r: r.parameters)
    return [item for members in rows.values() for item in members]
