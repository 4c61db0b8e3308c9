"""Finds the stored grids from which the parameters of a leaderboard's methods were chosen."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rscl_bench.declarations import known_scenario
from rscl_bench.leaderboards.keys import GroupKey
from rscl_bench.leaderboards.places import places_beside
from rscl_bench.leaderboards.rows import Row
from rscl_bench.results.schema import RunRecord
from rscl_bench.results.tuning import FOLDER, Tuning, read_tuning
from rscl_bench.spec import Protocol, edition_folder


def tunings_beside(sources: Iterable[Path], key: GroupKey) -> list[Tuning]:
    """Return the tunings of one scenario and protocol that lie beside the records.

    Args:
        sources: Folders and record files.
        key: Key of the leaderboard.

    Raises:
        ArtefactError: If a tuning cannot be read, is damaged or was edited by hand.
    """
    folder = Path(FOLDER) / edition_folder(key.scenario, key.edition) / key.protocol
    found = [
        read_tuning(path)
        for place in places_beside(sources)
        for path in sorted((place / folder).glob("*.json"))
    ]
    return [tuning for tuning in found if tuning.scenario.version == key.version]


def tuned(row: Row, tunings: Sequence[Tuning]) -> list[Tuning]:
    """Return the tunings whose choice all runs of a row have.

    Args:
        row: A trained row.
        tunings: Tunings of the leaderboard's scenario and protocol.
    """
    records = [run.record for run in row.runs.values()]
    return [
        tuning
        for tuning in tunings
        for record in records[:1]
        if record.identity.method["name"] == tuning.method
        if all(
            value_of(record.identity.method, record.identity.protocol, key) == value
            for key, value in tuning.choice.items()
        )
    ]


def learning_rate(record: RunRecord) -> Any:
    """Return the peak learning rate of a run."""
    identity = record.identity
    return value_of(identity.method, identity.protocol, "training.learning_rate")


def declared_choice(record: RunRecord) -> str | None:
    """Return how the protocol says that it chose the training settings of a run's method.

    Args:
        record: Record of a run; the statement counts only if the run has the declared values.

    Returns:
        The statement of the known scenario; None if it says nothing of this method.
    """
    identity = record.identity
    method, protocol = identity.method, _known_protocol(record)
    own: Any = method.get("training")
    if protocol is None or not isinstance(own, dict):
        return None
    for owner in (method["name"], _inner(method, ["objective", "name"])):
        declared = protocol.training_for.get(str(owner))
        if declared is not None and declared.chosen is not None:
            values = declared.model_dump(mode="json", include=set(declared.given()))
            if all(own.get(name) == value for name, value in values.items()):
                return declared.chosen
    return None


def _known_protocol(record: RunRecord) -> Protocol | None:
    """Return the protocol of a scenario that comes with this package, in the record's version."""
    named = record.identity.scenario
    scenario = known_scenario(named.name)
    if scenario is None:
        return None
    protocol = scenario.protocols.get(record.identity.protocol_name)
    return protocol if scenario.version == named.version else None


def value_of(method: Any, protocol: Any, key: str) -> Any:
    """Return the resolved value of a parameter; None if there is none.

    Args:
        method: Resolved recipe of a record.
        protocol: Resolved protocol of a record.
        key: Key of a ``--set`` assignment, such as ``strategies.ewc.weight``.
    """
    kind, *path = key.split(".")
    if kind == "objective":
        return _inner(method.get("objective"), path)
    if kind == "strategies":
        name = ".".join(path[:-1])
        own = [s for s in method.get("strategies", []) if s["name"] == name]
        return _inner(own[0], path[-1:]) if own else None
    own_value = _inner(method, [kind, *path])  # a method may have training settings of its own
    return _inner(protocol, [kind, *path]) if own_value is None else own_value


def _inner(value: Any, path: Sequence[str]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value
