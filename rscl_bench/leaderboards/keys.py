"""Names the leaderboard and the row of a run."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from packaging.version import InvalidVersion, Version

from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArtefactError
from rscl_bench.results.marks import SELF_RUN, MarkName
from rscl_bench.results.schema import RunRecord
from rscl_bench.spec import Edition, edition_folder, method_overrides


class GroupKey(NamedTuple):
    """Key of a leaderboard: values that all its records share.

    Attributes:
        scenario: Name of the scenario.
        version: Version of the scenario.
        edition: ``real`` or ``sketch``.
        protocol: Name of the protocol.
        protocol_digest: Hash of the resolved protocol, 8 hexadecimal digits. The defaults of
            objectives and strategies and the precision are not hashed.
        code: Version of the package that made the records: another version gives other numbers.
        record_format: Version of the records' layout.
    """

    scenario: str
    version: str
    edition: Edition
    protocol: str
    protocol_digest: str
    code: str
    record_format: int


class RowKey(NamedTuple):
    """Key of a row: values that all its runs share. The runs may come from several machines.

    Attributes:
        method: Name of the recipe, with overrides of the method in brackets. Plugins, the digest of
            a file of initial weights (``init:1a2b3c4d``) and ``extended`` for a run that continued
            another run follow after ``+``.
        precision: ``fp32`` or ``bf16``.
    """

    method: str
    precision: str


@dataclass(frozen=True)
class LoadedRecord:
    """A record, its file, and how far others have checked the run."""

    path: Path
    record: RunRecord
    mark: MarkName = SELF_RUN

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
        "precision": "auto",  # rows of two precisions stand in one table
    }
    return GroupKey(
        identity.scenario.name,
        identity.scenario.version,
        identity.edition,
        identity.protocol_name,
        sha256(canonical_json(shared)).hexdigest()[:8],
        identity.code,
        record.format,
    )


def shared_key(key: GroupKey) -> GroupKey:
    """Return the key that the leaderboards of one protocol share in all versions of this package.

    A newer version can take the folder of an older one, so these leaderboards are written together.
    """
    return key._replace(code="", record_format=0)


def row_key(record: RunRecord) -> RowKey:
    """Return the key of a run's row."""
    identity = record.identity
    name = str(identity.method.get("name"))
    overrides = ",".join(
        f"{key}={value if isinstance(value, str) else json.dumps(value, separators=(',', ':'))}"
        for key, value in method_overrides(identity.overrides, identity.method).items()
    )
    began = [] if identity.init is None else [f"init:{identity.init[:8]}"]
    began += [] if identity.parent is None else ["extended"]
    method = "+".join([f"{name}[{overrides}]" if overrides else name, *identity.plugins, *began])
    return RowKey(method, identity.precision)


def protocol_overrides(record: RunRecord) -> dict[str, Any]:
    """Return the ``--set`` assignments of the protocol, sorted by key.

    The precision is left out: it makes another row, and not another leaderboard.
    """
    identity = record.identity
    left_out = {"precision", *method_overrides(identity.overrides, identity.method)}
    return {key: value for key, value in sorted(identity.overrides.items()) if key not in left_out}


def group_folders(groups: Mapping[GroupKey, Sequence[LoadedRecord]]) -> dict[GroupKey, Path]:
    """Return ``<scenario>-v<version>[-sketch]/<protocol>[-<digest8>][-<code>]`` by group.

    The folder has the digest of the resolved protocol if all records override the protocol. If the
    records are of several versions of this package, the newest version has the folder without a
    version, and the folders of older versions end with their version.

    Raises:
        ArtefactError: If two groups of one version have the same folder.
    """
    folders: dict[GroupKey, Path] = {}
    owners: dict[Path, GroupKey] = {}
    newest: dict[Path, str] = {}
    for key in sorted(groups, key=lambda key: (_version(key.code), key), reverse=True):
        plain = _plain_folder(key, groups[key])
        folder = plain
        if newest.setdefault(plain, key.code) != key.code:
            folder = plain.with_name(f"{plain.name}-{key.code}")
        owner = owners.setdefault(folder, key)
        if owner != key:
            raise ArtefactError(_same_folder(key, groups[owner][0], groups[key][0]))
        folders[key] = folder
    return folders


def _plain_folder(key: GroupKey, loaded: Iterable[LoadedRecord]) -> Path:
    scenario = edition_folder(f"{key.scenario}-v{key.version}", key.edition)
    overridden = all(protocol_overrides(item.record) for item in loaded)
    return Path(scenario) / (
        f"{key.protocol}-{key.protocol_digest}" if overridden else key.protocol
    )


def _version(code: str) -> tuple[Version, str]:
    """Return a sorting key of versions; a text that is no version comes before all versions."""
    try:
        return Version(code), code
    except InvalidVersion:
        return Version("0.dev0"), code


def _same_folder(key: GroupKey, one: LoadedRecord, two: LoadedRecord) -> str:
    formats = {one.record.format, two.record.format}
    if len(formats) == 2:
        return (
            f"{one.path} and {two.path} are of the formats {' and '.join(map(str, formats))}, "
            "which state their data differently; run one of them again with this version."
        )
    return (
        f"{one.path} and {two.path} resolve protocol '{key.protocol}' of {key.scenario} version "
        f"{key.version} differently; give the changed scenario another version, or move one "
        "record away."
    )
