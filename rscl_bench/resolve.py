"""Resolve scenario, protocol, recipe and overrides to a run with a value for every parameter."""

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, NamedTuple

from rscl_bench import registry
from rscl_bench.declarations import declarations, with_bands
from rscl_bench.encoder_bands import check_bands
from rscl_bench.errors import SpecError, unknown
from rscl_bench.spec import (
    Component,
    Components,
    Method,
    MethodTraining,
    Optimisation,
    Protocol,
    RunSpec,
    Scenario,
    Spec,
    Training,
    is_method_key,
    is_optimisation_key,
    validated,
)

#: Origins of values by parameter, by table: ``protocol``, ``views``, ``backbone``, ``training``,
#: ``objective`` and ``strategies.NAME``.
Origins = dict[str, dict[str, str]]
BY_SET = "--set"
BY_DEFAULT = "default"


class Layer(NamedTuple):
    """Values of one origin; a later layer overrides an earlier one."""

    origin: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Resolution:
    """A resolved run, and the origin of every value.

    Attributes:
        spec: The run.
        origins: Where each value of backbone, training, objective and strategies comes from.
    """

    spec: RunSpec
    origins: Origins


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
        SpecError: On a seed outside 0 to 2^63 - 1, an unknown protocol, key, component or
            parameter, or a value of the wrong type.
    """
    return resolve(scenario, method, protocol_name, seed, overrides).spec


def resolve(
    scenario: Scenario,
    method: Method,
    protocol_name: str | None = None,
    seed: int = 0,
    overrides: Mapping[str, Any] | None = None,
) -> Resolution:
    """Return the run of `resolve_run` together with the origin of every value.

    Args:
        scenario: As in `resolve_run`.
        method: As in `resolve_run`.
        protocol_name: As in `resolve_run`.
        seed: As in `resolve_run`.
        overrides: As in `resolve_run`.

    Raises:
        SpecError: As in `resolve_run`.
    """
    _check_seed(seed)
    chosen = protocol_name or scenario.default_protocol
    if chosen not in scenario.protocols:
        raise unknown(f"protocol of scenario {scenario.name}", chosen, scenario.protocols)
    scenario = with_bands(scenario)
    overrides = dict(overrides or {})
    changes, protocol = _applied(scenario.protocols[chosen], chosen, method, overrides)
    check_bands(scenario, chosen, protocol)
    _check_names(protocol, chosen, method)
    layers, notes = _layers(protocol, chosen, method, changes)
    resolved = _filled_method(method, layers)
    shown = _training(protocol, layers)
    if any(layer.values for layer in layers["training"][1:]):
        own = {name: getattr(shown, name) for name in Optimisation.model_fields}
        resolved = resolved.model_copy(update={"training": MethodTraining(**own)})
    backbone = _filled("backbones", layers["backbone"])
    shared = protocol.model_copy(
        update={
            "backbone": Component.model_validate(backbone),
            "backbones": {},
            "training_for": {},
            "defaults": _used_defaults(protocol.defaults, scenario, layers),
        }
    )
    spec = RunSpec(
        scenario=scenario,
        protocol_name=chosen,
        protocol=shared,
        method=resolved,
        seed=seed,
        overrides=dict(sorted(overrides.items())),
        notes=notes,
    )
    _check_references(spec)
    return Resolution(spec, _origins(spec, layers, scenario.protocols[chosen]))


def resolve_recipe(method: Method) -> tuple[Method, Origins]:
    """Return a recipe with the default of every parameter, and the origins of the values.

    Nothing of a protocol is in the result. A run has the protocol's defaults too.

    Raises:
        SpecError: If a component or a parameter is unknown, or a value is not valid.
    """
    strategies = _short_names(method)
    changes: Components = {"objective": {}, **{f"strategies.{own}": {} for own in strategies}}
    layers = _component_layers(method, {}, f"recipe {method.name}", "", changes)
    filled = _filled_method(method, layers)
    return filled, _origins_of(filled, layers)


def _check_seed(seed: int) -> None:
    limit = 2**63
    if not 0 <= seed < limit:
        shown = f"{seed}" if abs(seed) < 10 * limit else "too large"
        raise SpecError(f"The seed is {shown}; give a whole number from 0 to 2^63 - 1.")


def _applied(
    named: Protocol, name: str, method: Method, overrides: Mapping[str, Any]
) -> tuple[Components, Protocol]:
    """Return the overrides of every component, and the protocol with all other overrides."""
    # `model_dump` drops some fields that have their default; --set must find these fields too.
    raw = {field: getattr(named, field) for field in Protocol.model_fields} | named.model_dump()
    kept = {key: raw.pop(key) for key in ("training_for", "backbones") if key in raw}
    raw["training"] = dict(named.training)
    strategies = _short_names(method)
    changes: Components = {"objective": {}, **{f"strategies.{own}": {} for own in strategies}}
    changes |= {"training": {}, "backbone": {}}
    for key, value in overrides.items():
        owner, _, parameter = key.rpartition(".")
        if is_optimisation_key(key) or (owner in changes and owner != "training"):
            changes[owner][parameter] = value
        elif key in changes and is_method_key(key):
            raise SpecError(f"--set {key} needs a parameter, as in {key}.PARAMETER=VALUE.")
        elif is_method_key(key):
            owners = [own for own in changes if is_method_key(own)]
            raise unknown(f"component of method {method.name}", owner or key, owners)
        else:
            _assign(raw, key, value, _method_keys(method, strategies))
    return changes, validated(Protocol, {**raw, **kept}, BY_SET if overrides else name)


def _short_names(method: Method) -> list[str]:
    """Return the short names of the strategies.

    Raises:
        SpecError: If two are equal.
    """
    names = [registry.short_name("strategies", one.name) for one in method.strategies]
    if len(set(names)) != len(names):
        raise SpecError(
            f"Method {method.name} lists a strategy twice: {', '.join(names)}; give a class of "
            "your own another NAME."
        )
    return names


def _method_keys(method: Method, strategies: Sequence[str]) -> list[str]:
    """Return the ``--set`` keys of a method, for the message on an unknown key."""
    components: list[tuple[str, registry.Kind, str]] = [
        ("objective", "objectives", method.objective.name)
    ]
    for short, strategy in zip(strategies, method.strategies, strict=True):
        components.append((f"strategies.{short}", "strategies", strategy.name))
    return [
        f"{owner}.{field}"
        for owner, kind, name in components
        for field in registry.load(kind, name).Params.model_fields
    ]


def _check_names(protocol: Protocol, name: str, method: Method) -> None:
    """Refuse settings for an unknown component: a misspelt name would have no effect."""
    kinds: tuple[registry.Kind, ...] = ("objectives", "strategies", "probes")
    known = [component for kind in kinds for component in registry.entries(kind)]
    for component in protocol.defaults:
        if component not in known:
            raise unknown(f"component in the defaults of protocol {name}:", component, known)
    for backbone in protocol.backbones:
        registry.load("backbones", backbone)
    trained = [*registry.entries("objectives"), *declarations("methods"), method.name]
    for one in protocol.training_for:
        if one not in trained:
            raise unknown(f"method or objective in training_for of protocol {name}:", one, trained)


def _layers(
    protocol: Protocol, name: str, method: Method, changes: Components
) -> tuple[dict[str, list[Layer]], tuple[str, ...]]:
    """Return the layers of every component, the lowest first, and notes on what was left out."""
    by_protocol, recipe = f"protocol {name}", f"recipe {method.name}"
    objective = registry.short_name("objectives", method.objective.name)
    layers = {"training": [Layer(by_protocol, dict(protocol.training))]}
    for owner in dict.fromkeys((objective, method.name)):
        if owner in protocol.training_for:
            own = protocol.training_for[owner].given()
            layers["training"].append(Layer(f"{by_protocol}, for {owner}", own))
    if method.training is not None:
        layers["training"].append(Layer(recipe, method.training.given()))
    layers["training"].append(Layer(BY_SET, changes["training"]))
    layers |= _component_layers(method, protocol.defaults, recipe, by_protocol, changes)
    layers["backbone"], notes = _backbone_layers(protocol, name, changes["backbone"])
    return layers, notes


def _component_layers(
    method: Method, defaults: Components, recipe: str, by_protocol: str, changes: Components
) -> dict[str, list[Layer]]:
    """Return the layers of objective and strategies, the lowest first."""
    owners = ["objective", *(owner for owner in changes if owner.startswith("strategies."))]
    return {
        owner: [
            Layer("", {"name": one.name}),
            Layer(by_protocol, defaults.get(one.name, {})),
            Layer(recipe, one.parameters),
            Layer(BY_SET, changes[owner]),
        ]
        for owner, one in zip(owners, (method.objective, *method.strategies), strict=True)
    }


def _backbone_layers(
    protocol: Protocol, name: str, changed: Mapping[str, Any]
) -> tuple[list[Layer], tuple[str, ...]]:
    """Return the layers of the backbone; another backbone keeps the parameters that it has too."""
    declared, origin = protocol.backbone, f"protocol {name}"
    chosen = changed.get("name", declared.name)
    if not isinstance(chosen, str):
        raise SpecError(f"--set backbone.name takes a name, such as resnet; got {chosen!r:.60}.")
    if registry.is_reference(chosen) and chosen != declared.name:
        raise SpecError(
            "--set backbone.name takes a registered name; name a class of your own in the TOML of "
            "the scenario."
        )
    named, set_here = Layer("", {"name": chosen}), Layer(BY_SET, _without_name(changed))
    if chosen == declared.name:
        return [named, Layer(origin, declared.parameters), set_here], ()
    if chosen in protocol.backbones:
        alternative = Layer(f"{origin}, backbones.{chosen}", protocol.backbones[chosen])
        return [named, alternative, set_here], ()
    fields = registry.load("backbones", chosen).Params.model_fields
    kept = {key: value for key, value in declared.parameters.items() if key in fields}
    dropped = sorted(set(declared.parameters) - set(kept))
    note = (
        f"the backbone is {chosen} instead of {declared.name}, so that {', '.join(dropped)} of "
        f"protocol {name} {'does' if len(dropped) == 1 else 'do'} not apply; "
        f"{', '.join(sorted(kept)) or 'nothing'} was kept, and the rest are defaults of {chosen}"
    )
    return [named, Layer(origin, kept), set_here], (note,) if dropped else ()


def _without_name(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key != "name"}


def _merged(layers: Sequence[Layer]) -> dict[str, Any]:
    return dict(chain.from_iterable(layer.values.items() for layer in layers))


class _Trained(Spec):
    """Gives messages on the training the names of its keys."""

    training: Training


def _training(protocol: Protocol, layers: Mapping[str, list[Layer]]) -> Training:
    """Return the training of the run: the protocol's, with the method's own settings."""
    origins = [layer.origin for layer in layers["training"] if layer.values]
    training = validated(_Trained, {"training": _merged(layers["training"])}, origins[-1]).training
    try:
        training.check_warmup()
    except ValueError as error:
        raise SpecError(f"The training ({', '.join(origins)}) is not valid: {error}.") from error
    return training


def _filled_method(method: Method, layers: Mapping[str, list[Layer]]) -> Method:
    """Return a recipe whose components state all their parameters."""
    owners = [owner for owner in layers if owner.startswith("strategies.")]
    strategies = [_filled("strategies", layers[owner]) for owner in owners]
    return method.model_copy(
        update={
            "objective": Component.model_validate(_filled("objectives", layers["objective"])),
            "strategies": tuple(Component.model_validate(one) for one in strategies),
        }
    )


def _filled(kind: registry.Kind, layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the name and all parameters of a component; refuse unknown parameters."""
    merged = _merged(layers)
    name = merged.pop("name")
    component = registry.load(kind, name)
    where = f"'{registry.short_name(kind, name)}'"
    return {"name": name, **validated(component.Params, merged, where).model_dump()}


def _used_defaults(
    defaults: Components, scenario: Scenario, layers: Mapping[str, list[Layer]]
) -> Components:
    """Return the defaults that a run uses; unused defaults stay out of the run's identity."""
    given: dict[str, set[str]] = {probe.probe: set() for probe in scenario.probes}
    for owner, own in layers.items():
        if is_method_key(owner):
            by_recipe_or_set = _merged(own[2:])
            given[own[0].values["name"]] = set(by_recipe_or_set)
    used = {
        name: {key: value for key, value in values.items() if key not in given[name]}
        for name, values in defaults.items()
        if name in given
    }
    return {name: values for name, values in used.items() if values}


def _origins(spec: RunSpec, layers: Mapping[str, list[Layer]], declared: Protocol) -> Origins:
    backbone = spec.protocol.backbone.parameters
    by_protocol = f"protocol {spec.protocol_name}"

    def shared(prefix: str, table: Spec) -> dict[str, str]:
        """Return the origins of the values of a table that all methods share."""
        return {
            key: BY_SET
            if f"{prefix}{key}" in spec.overrides
            else (by_protocol if key in table.model_fields_set else BY_DEFAULT)
            for key in type(table).model_fields
        }

    own = {key: _origin(layers["training"], key) for key in Training.model_fields}
    training = shared("training.", declared.training)
    return {
        **_origins_of(spec.method, layers),
        "backbone": {key: _origin(layers["backbone"], key) for key in backbone},
        "training": {k: training[k] if o == by_protocol else o for k, o in own.items()},
        "views": shared("views.", declared.views),
        "protocol": shared("", declared),
    }


def _origins_of(method: Method, layers: Mapping[str, list[Layer]]) -> Origins:
    owners = [owner for owner in layers if is_method_key(owner)]
    components = zip(owners, (method.objective, *method.strategies), strict=True)
    return {
        owner: {key: _origin(layers[owner], key) for key in component.parameters}
        for owner, component in components
    }


def _origin(layers: Sequence[Layer], key: str) -> str:
    """Return the origin of a value: that of the highest layer that has it."""
    having = (layer.origin for layer in reversed(layers) if key in layer.values)
    return next(having, BY_DEFAULT)


def references(spec: RunSpec) -> Iterator[tuple[registry.Kind, str]]:
    """Yield kind and name of every component of a run."""
    for task in spec.scenario.tasks:
        yield "datasets", task.dataset
    for probe in spec.scenario.probes:
        yield "datasets", probe.dataset
        yield "probes", probe.probe
    yield "backbones", spec.protocol.backbone.name
    yield "objectives", spec.method.objective.name
    for strategy in spec.method.strategies:
        yield "strategies", strategy.name


def _check_references(spec: RunSpec) -> None:
    """Refuse two classes of one kind with equal short names, and overrides that are not finite."""
    named: dict[tuple[registry.Kind, str], str] = {}
    for kind, name in references(spec):
        if registry.is_reference(name):
            short = registry.short_name(kind, name)
            other = named.setdefault((kind, short), name)
            if other != name:
                raise SpecError(
                    f"'{other}' and '{name}' have the same short name '{short}' in one run; give "
                    "one of the classes another NAME."
                )
    for key, value in spec.overrides.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise SpecError(f"--set {key} takes a finite number; got {value}.")


def parse_assignments(texts: Iterable[str], option: str = BY_SET) -> dict[str, Any]:
    """Return the values of ``key=value`` texts by key.

    Args:
        texts: The texts.
        option: The option that takes them, for messages.

    Raises:
        SpecError: If a text is not an assignment.
    """
    return dict(
        _parse_assignment(text, option) for text in texts
    )  # the last assignment to a key counts


def parse_value(text: str, option: str = BY_SET) -> Any:
    """Return the value of a TOML text; a text that is not TOML, such as ``fp32``, is a string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text.strip()
    except (RecursionError, ValueError) as error:  # nested lists; numbers of thousands of digits
        raise SpecError(f"{option} takes a value of usual size; got '{text[:40]}...'.") from error
    if set(parsed) != {"value"}:
        raise SpecError(f"{option} takes one key=value at a time; got '{text}'.")
    return parsed["value"]


def _parse_assignment(text: str, option: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.strip() or not value.strip():
        raise SpecError(f"{option} takes key=value, as in training.epochs=5; got '{text}'.")
    return name.strip(), parse_value(value, option)


def _assign(raw: dict[str, Any], name: str, value: Any, method_keys: Sequence[str]) -> None:
    *path, last = name.split(".")
    table = raw
    for key in path:
        inner = table.get(key)
        if not isinstance(inner, dict):
            raise unknown("key of --set", name, [*_flat_keys(raw), *method_keys])
        table = inner
    if last not in table and path[:1] not in (["backbone"], ["defaults"]):
        raise unknown("key of --set", name, [*_flat_keys(raw), *method_keys])
    table[last] = value


def _flat_keys(raw: dict[str, Any], prefix: str = "") -> list[str]:
    keys = []
    for name, value in raw.items():
        if isinstance(value, dict) and value:
            keys += _flat_keys(value, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys
