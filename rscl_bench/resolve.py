"""From scenario, protocol, recipe and ``--set`` to a run with every parameter's value."""

import tomllib
from typing import Any

from rscl_bench import registry
from rscl_bench.errors import SpecError, unknown
from rscl_bench.spec import Component, Method, Protocol, RunSpec, Scenario, validated


def resolve_run(
    scenario: Scenario,
    method: Method,
    protocol_name: str | None = None,
    seed: int = 0,
    assignments: tuple[str, ...] = (),
) -> RunSpec:
    """Apply a protocol and ``--set`` assignments, and fill in every parameter's value.

    Args:
        scenario: The scenario.
        method: The recipe.
        protocol_name: The protocol; the scenario's default if None.
        seed: The seed.
        assignments: ``key=value`` texts. Keys are fields of the protocol (``training.epochs``),
            ``objective.PARAMETER`` or ``strategies.NAME.PARAMETER``.

    Returns:
        The resolved run; every component carries all its parameters.

    Raises:
        SpecError: On an unknown protocol, key, component or parameter, or a value of the wrong
            type.
    """
    chosen = protocol_name or scenario.default_protocol
    if chosen not in scenario.protocols:
        raise unknown(f"protocol of scenario {scenario.name}", chosen, scenario.protocols)
    named = scenario.protocols[chosen]
    protocol_raw = {"compile": named.compile, **named.model_dump()}  # left out where it is off
    components = ["objective", *(f"strategies.{s.name}" for s in method.strategies)]
    changes: dict[str, dict[str, Any]] = {component: {} for component in components}
    overrides = {}
    for assignment in assignments:
        name, value = _parse_assignment(assignment)
        overrides[name] = value
        owner, _, parameter = name.rpartition(".")
        if owner in changes:
            changes[owner][parameter] = value
        elif name in changes:
            raise SpecError(f"--set {name} needs a parameter, as in {name}.PARAMETER=VALUE.")
        elif name.split(".")[0] in ("objective", "strategies"):
            raise unknown(f"component of method {method.name}", owner or name, changes)
        else:
            _assign(protocol_raw, name, value)
    protocol = validated(Protocol, protocol_raw, "--set" if overrides else chosen)
    backbone = validated(Component, protocol.backbone, "backbone")
    _check_defaults(protocol.defaults, chosen)
    resolved = with_parameters(method, changes, protocol.defaults)
    protocol = protocol.model_copy(
        update={
            "backbone": _filled("backbones", backbone.name, backbone.parameters, {}),
            "defaults": _taken(protocol.defaults, scenario, method, changes),
        }
    )
    return RunSpec(
        scenario=scenario,
        protocol_name=chosen,
        protocol=protocol,
        method=resolved,
        seed=seed,
        overrides=dict(sorted(overrides.items())),
    )


def _check_defaults(defaults: dict[str, dict[str, Any]], protocol: str) -> None:
    """Refuse defaults of a name that nothing has: a slip there would change nothing, silently."""
    kinds: tuple[registry.Kind, ...] = ("objectives", "strategies", "probes")
    known = [name for kind in kinds for name in registry.entries(kind)]
    for name in defaults:
        if name not in known:
            raise unknown(f"component in the defaults of protocol {protocol}:", name, known)


def _taken(
    defaults: dict[str, dict[str, Any]],
    scenario: Scenario,
    method: Method,
    changes: dict[str, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return the defaults that a run takes: others are no part of it, nor of its identity."""
    given: dict[str, set[str]] = {probe.probe: set() for probe in scenario.probes}
    parts = {"objective": method.objective} | {f"strategies.{s.name}": s for s in method.strategies}
    for place, part in parts.items():
        given[part.name] = {*part.parameters, *changes[place]}
    taken = {
        name: {key: value for key, value in values.items() if key not in given[name]}
        for name, values in defaults.items()
        if name in given
    }
    return {name: values for name, values in taken.items() if values}


def with_parameters(
    method: Method, changes: dict[str, dict[str, Any]], defaults: dict[str, dict[str, Any]]
) -> Method:
    """Return a recipe whose components carry all their parameters.

    A protocol's defaults give way to the recipe, and the recipe to ``--set``.
    """
    names = [strategy.name for strategy in method.strategies]
    if len(set(names)) != len(names):
        raise SpecError(f"Method {method.name} lists a strategy twice: {', '.join(names)}.")
    recipe = method.objective
    changed = {**recipe.parameters, **changes.get("objective", {})}
    objective = _filled("objectives", recipe.name, changed, defaults)
    strategies = []
    for recipe in method.strategies:
        changed = {**recipe.parameters, **changes.get(f"strategies.{recipe.name}", {})}
        strategies.append(_filled("strategies", recipe.name, changed, defaults))
    return method.model_copy(
        update={
            "objective": Component.model_validate(objective),
            "strategies": tuple(Component.model_validate(s) for s in strategies),
        }
    )


def _parse_assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise SpecError(f"--set takes key=value, as in training.epochs=5; got '{text}'.")
    try:
        parsed = tomllib.loads(f"value = {value}")
    except tomllib.TOMLDecodeError:
        parsed = {"value": value.strip()}  # a bare word, as in precision=fp32
    if set(parsed) != {"value"}:
        raise SpecError(f"--set takes one key=value at a time; got '{text}'.")
    return name.strip(), parsed["value"]


def _assign(raw: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    place = raw
    for part in path:
        if not isinstance(place.get(part), dict):
            raise unknown("key of --set", name, _flat_keys(raw))
        place = place[part]
    if last not in place and path[:1] not in (["backbone"], ["defaults"]):
        raise unknown("key of --set", name, _flat_keys(raw))
    place[last] = value


def _flat_keys(raw: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for name, value in raw.items():
        if isinstance(value, dict) and value:
            keys += _flat_keys(value, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def _filled(
    kind: registry.Kind, name: str, parameters: dict[str, Any], defaults: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Return name and all parameters of a component, defaults filled in, unknown ones refused."""
    component = registry.load(kind, name)
    merged = {**defaults.get(name, {}), **parameters}
    return {"name": name, **validated(component.Params, merged, f"'{name}'").model_dump()}
