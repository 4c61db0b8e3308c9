"""Resolve scenario, protocol, recipe and overrides to a run with a value for every parameter."""

import tomllib
from collections.abc import Iterable, Mapping
from typing import Any

from rscl_bench import registry
from rscl_bench.errors import SpecError, unknown
from rscl_bench.spec import Component, Method, Protocol, RunSpec, Scenario, is_method_key, validated


def resolve_run(
    scenario: Scenario,
    method: Method,
    protocol_name: str | None = None,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
) -> RunSpec:
    """Apply a protocol and overrides, and fill in the value of every parameter.

    Args:
        scenario: The scenario.
        method: The recipe.
        protocol_name: Name of a protocol; None for the default protocol of the scenario.
        seed: The seed.
        overrides: Values by key. Keys are fields of the protocol (``training.epochs``),
            ``objective.PARAMETER`` or ``strategies.NAME.PARAMETER``.

    Returns:
        The resolved run; every component states all its parameters.

    Raises:
        SpecError: On a negative seed, an unknown protocol, key, component or parameter, or a value
            of the wrong type.
    """
    if seed < 0:
        raise SpecError(f"The seed is {seed}; give a whole number from 0.")
    chosen = protocol_name or scenario.default_protocol
    if chosen not in scenario.protocols:
        raise unknown(f"protocol of scenario {scenario.name}", chosen, scenario.protocols)
    named = scenario.protocols[chosen]
    # `model_dump` drops some fields that have their default; --set must find these fields too.
    protocol_raw = {name: getattr(named, name) for name in Protocol.model_fields}
    protocol_raw |= named.model_dump()
    components = ["objective", *(f"strategies.{s.name}" for s in method.strategies)]
    changes: dict[str, dict[str, Any]] = {component: {} for component in components}
    overrides = dict(overrides or {})
    for name, value in overrides.items():
        owner, _, parameter = name.rpartition(".")
        if owner in changes:
            changes[owner][parameter] = value
        elif name in changes:
            raise SpecError(f"--set {name} needs a parameter, as in {name}.PARAMETER=VALUE.")
        elif is_method_key(name):
            raise unknown(f"component of method {method.name}", owner or name, changes)
        else:
            _assign(protocol_raw, name, value)
    protocol = validated(Protocol, protocol_raw, "--set" if overrides else chosen)
    _check_defaults(protocol.defaults, chosen)
    backbone = protocol.backbone
    resolved = with_parameters(method, changes, protocol.defaults)
    protocol = protocol.model_copy(
        update={
            "backbone": Component.model_validate(
                _filled("backbones", backbone.name, backbone.parameters, {})
            ),
            "defaults": _used_defaults(protocol.defaults, scenario, method, changes),
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
    """Refuse defaults for an unknown component: a misspelt name would have no effect."""
    kinds: tuple[registry.Kind, ...] = ("objectives", "strategies", "probes")
    known = [name for kind in kinds for name in registry.entries(kind)]
    for name in defaults:
        if name not in known:
            raise unknown(f"component in the defaults of protocol {protocol}:", name, known)


def _used_defaults(
    defaults: dict[str, dict[str, Any]],
    scenario: Scenario,
    method: Method,
    changes: dict[str, dict[str, Any]],
) -> dict[str, dict[str, Any]]:
    """Return the defaults that a run uses; unused defaults stay out of the run's identity."""
    given: dict[str, set[str]] = {probe.probe: set() for probe in scenario.probes}
    components = {"objective": method.objective}
    components |= {f"strategies.{s.name}": s for s in method.strategies}
    for owner, component in components.items():
        given[component.name] = {*component.parameters, *changes[owner]}
    used = {
        name: {key: value for key, value in values.items() if key not in given[name]}
        for name, values in defaults.items()
        if name in given
    }
    return {name: values for name, values in used.items() if values}


def with_parameters(
    method: Method, changes: dict[str, dict[str, Any]], defaults: dict[str, dict[str, Any]]
) -> Method:
    """Return a recipe whose components state all their parameters.

    The recipe overrides the defaults of the protocol, and ``--set`` overrides the recipe.
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


def parse_assignments(texts: Iterable[str]) -> dict[str, Any]:
    """Return the values of ``key=value`` texts by key.

    Raises:
        SpecError: If a text is not an assignment.
    """
    return dict(_parse_assignment(text) for text in texts)  # the last assignment to a key counts


def parse_value(text: str) -> Any:
    """Return the value of a TOML text; a text that is not TOML, such as ``fp32``, is a string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    if set(parsed) != {"value"}:
        raise SpecError(f"--set takes one key=value at a time; got '{text}'.")
    return parsed["value"]


def _parse_assignment(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise SpecError(f"--set takes key=value, as in training.epochs=5; got '{text}'.")
    return name.strip(), parse_value(value)


def _assign(raw: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    table = raw
    for key in path:
        if not isinstance(table.get(key), dict):
            raise unknown("key of --set", name, _flat_keys(raw))
        table = table[key]
    if last not in table and path[:1] not in (["backbone"], ["defaults"]):
        raise unknown("key of --set", name, _flat_keys(raw))
    table[last] = value


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
    """Return the name and all parameters of a component; refuse unknown parameters."""
    component = registry.load(kind, name)
    merged = {**defaults.get(name, {}), **parameters}
    return {"name": name, **validated(component.Params, merged, f"'{name}'").model_dump()}
