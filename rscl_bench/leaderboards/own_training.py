"""Methods that train with settings of their own, and how the settings were chosen."""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from rscl_bench.declarations import declarations, load_method, load_scenario
from rscl_bench.results.schema import RunRecord
from rscl_bench.spec import MethodTraining, Protocol


class TunedRate(NamedTuple):
    """The optimiser settings of one method that are not the protocol's.

    Attributes:
        method: Name of the recipe.
        settings: Values that differ from the protocol's, by name.
        chosen: How the values were chosen: seeds, epochs, grid and split. None if neither the
            protocol nor the recipe of this package says so for these values.
    """

    method: str
    settings: dict[str, Any]
    chosen: str | None

    def text(self) -> str:
        """Return the settings and how they were chosen, in one line."""
        values = ", ".join(f"{name} {json.dumps(value)}" for name, value in self.settings.items())
        return f"{self.method}: {values} ({self.chosen or 'how they were chosen is not stated'})"


def tuned_rates(records: Iterable[RunRecord]) -> list[TunedRate]:
    """Return the methods whose rate or other optimiser settings are not the protocol's.

    Args:
        records: Records of one leaderboard. Runs that set such values with ``--set`` are left out:
            the names of their rows have the values.

    Returns:
        One entry per method and values, sorted by method.
    """
    found: dict[str, TunedRate] = {}
    for record in records:
        own: Any = record.identity.method.get("training")
        overridden = any(key.startswith("training.") for key in record.identity.overrides)
        shared: Any = record.identity.protocol.get("training")
        if overridden or not (isinstance(own, dict) and isinstance(shared, dict)):
            continue
        settings = {name: value for name, value in own.items() if value != shared.get(name)}
        tuned = TunedRate(str(record.identity.method["name"]), settings, _chosen(record, settings))
        if settings:
            found[tuned.text()] = tuned
    return [found[text] for text in sorted(found)]


def _chosen(record: RunRecord, settings: dict[str, Any]) -> str | None:
    """Return what the declarations of this package say on how the settings were chosen."""
    identity, objective = record.identity, record.identity.method["objective"]
    name = str(identity.method["name"])
    if name in declarations("methods"):
        recipe = load_method(name).training
        if recipe is not None and _agrees(recipe, settings):
            return recipe.chosen
    protocol = _declared_protocol(record)
    if protocol is None or not isinstance(objective, dict):
        return None
    for owner in (name, str(objective["name"])):
        declared = protocol.training_for.get(owner)
        if declared is not None and _agrees(declared, settings):
            return declared.chosen
    return None


def _declared_protocol(record: RunRecord) -> Protocol | None:
    identity = record.identity
    if identity.scenario.name not in declarations("scenarios"):
        return None
    scenario = load_scenario(identity.scenario.name)
    if scenario.version != identity.scenario.version:
        return None
    return scenario.protocols.get(identity.protocol_name)


def _agrees(declared: MethodTraining, settings: dict[str, Any]) -> bool:
    given = declared.model_dump(mode="json")
    return all(given.get(name) == value for name, value in settings.items())
