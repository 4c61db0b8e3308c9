"""Explains names: the values of a method in a run, and the parameters of components."""

import json
from collections.abc import Callable, Iterator, Mapping
from textwrap import fill, indent
from typing import Any, NamedTuple

from pydantic import BaseModel

from rscl_bench import registry
from rscl_bench.declarations import declarations, is_scenario, load_method, load_scenario
from rscl_bench.errors import SpecError, unknown
from rscl_bench.parameters import Parameter, introduction, parameters
from rscl_bench.registry import Kind
from rscl_bench.resolve import BY_DEFAULT, Origins, resolve, resolve_recipe
from rscl_bench.sensor_table import SENSORS, sensor_named
from rscl_bench.spec import Method, Probe, Protocol, Scenario, Task, Training, Views

_WIDTH = 100
#: Names of the kinds in ``KIND:NAME``.
KINDS: tuple[str, ...] = ("scenario", "method", *registry.SINGULAR.values(), "sensor")


class Explained(NamedTuple):
    """The explanation of one thing.

    Attributes:
        kind: One of `KINDS`.
        name: Its name, or a path to a TOML.
        text: The explanation as text.
        data: The same facts as JSON values.
    """

    kind: str
    name: str
    text: str
    data: dict[str, Any]


def explain(
    name: str,
    scenario: str | None = None,
    protocol: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> list[Explained]:
    """Explain everything that has a name.

    Args:
        name: A name, a path to a TOML, or ``KIND:NAME`` for one of several things of a name.
        scenario: For a method: the scenario of the run whose values are explained. None leaves the
            defaults of protocols out.
        protocol: A protocol of the scenario; None for its default.
        overrides: For a method: assignments of ``--set``.

    Returns:
        One explanation for each thing of this name.

    Raises:
        SpecError: If nothing has the name, or a value is not valid.
    """
    kind, _, rest = name.partition(":")
    kinds = [kind] if kind in KINDS and rest else _kinds_of(name)
    bare = rest if kind in KINDS and rest else name
    if scenario is None and (protocol is not None or overrides):
        raise SpecError("--protocol and --set need --scenario, whose values they change.")
    if scenario is not None:
        if "method" not in kinds:
            raise SpecError(
                f"--scenario goes with a method, and '{name}' is {registry.article(kinds[0])}; "
                "leave --scenario out."
            )
        kinds = ["method"]
    makers: dict[str, Callable[[], Explained]] = {
        "scenario": lambda: _scenario(bare),
        "method": lambda: _method(bare, scenario, protocol, overrides or {}),
        "sensor": lambda: _sensor(bare),
    }
    plural = {word: kind for kind, word in registry.SINGULAR.items()}
    return [makers[kind]() if kind in makers else _component(plural[kind], bare) for kind in kinds]


def _kinds_of(name: str) -> list[str]:
    """Return the kinds in which a name or the path of a TOML stands."""
    if name.endswith(".toml"):
        return ["scenario" if is_scenario(name) else "method"]
    known = dict(_named())
    # A dataset may have a second part: torchgeo:EuroSAT.
    owner, colon, _ = name.partition(":")
    if colon and owner in known["dataset"]:
        return ["dataset"]
    found = [kind for kind, names in known.items() if name in names]
    if not found:
        every = [each for names in known.values() for each in names]
        raise unknown("scenario, method or component", name, every)
    return found


def _named() -> Iterator[tuple[str, list[str]]]:
    yield "scenario", list(declarations("scenarios"))
    yield "method", list(declarations("methods"))
    for kind, word in registry.SINGULAR.items():
        yield word, list(registry.entries(kind))
    yield "sensor", list(SENSORS)


# Methods.


def _method(
    name: str, scenario: str | None, protocol: str | None, overrides: Mapping[str, Any]
) -> Explained:
    method = load_method(name)
    if scenario is None:
        filled, origins = resolve_recipe(method)
        where = (
            "without a protocol, whose defaults a run would have; for the values of a run give "
            "--scenario"
        )
        tables = [*_recipe_tables(filled, origins)]
        data: dict[str, Any] = filled.model_dump(mode="json")
    else:
        resolved = resolve(load_scenario(scenario), method, protocol, overrides=overrides)
        spec, origins = resolved.spec, resolved.origins
        filled = spec.method
        where = f"the values of a run of scenario {spec.scenario.name}, protocol "
        where += spec.protocol_name
        tables = [
            *_recipe_tables(filled.model_copy(update={"training": None}), origins),
            _table("[training]", dict(spec.training), origins["training"]),
            *_protocol_tables(spec.protocol, origins),
        ]
        data = {
            "scenario": spec.scenario.name,
            "protocol_name": spec.protocol_name,
            "protocol": spec.trained_protocol().model_dump(mode="json"),
            "method": filled.model_dump(mode="json"),
        }
    head = f"# method {filled.name}: {filled.title}\n# {where}\nname = {toml(filled.name)}\n"
    return Explained("method", name, "\n".join([head, *tables]), data)


def _recipe_tables(method: Method, origins: Origins) -> Iterator[str]:
    objective = method.objective
    yield _table("[objective]", objective.parameters, origins["objective"], objective.name)
    for strategy in method.strategies:
        short = registry.short_name("strategies", strategy.name)
        own = origins[f"strategies.{short}"]
        yield _table("[[strategies]]", strategy.parameters, own, strategy.name, short)
    if method.training is not None:
        own = dict.fromkeys(method.training.given(), f"recipe {method.name}")
        yield _table("[training]", method.training.given(), own)


def _protocol_tables(protocol: Protocol, origins: Origins) -> Iterator[str]:
    backbone = protocol.backbone
    yield _table("[backbone]", backbone.parameters, origins["backbone"], backbone.name)
    yield _table("[views]", dict(protocol.views), origins["views"])
    tables = ("backbone", "backbones", "training", "training_for", "views", "defaults")
    values = {key: value for key, value in protocol if key not in tables}
    yield _table("[protocol]", values, origins["protocol"])


def _table(
    heading: str,
    values: Mapping[str, Any],
    origins: Mapping[str, str],
    name: str | None = None,
    short: str | None = None,
) -> str:
    """Return a table of TOML with the origin of each value as a comment."""
    lines = [heading]
    if name is not None:
        known_as = f"  # {short} in --set" if short not in (None, name) else ""
        lines.append(f"name = {toml(name)}{known_as}")
    for key, value in values.items():
        line = f"# {key} is not set" if value is None else f"{key} = {toml(value)}"
        lines.append(f"{line}  # {origins[key]}")
    return "\n".join(lines) + "\n"


def toml(value: Any) -> str:
    """Return a value as TOML, in one line.

    Raises:
        ValueError: If TOML has no such value.
    """
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json", exclude_none=True)
    if isinstance(value, Mapping):
        inner = ", ".join(f"{_key(key)} = {toml(item)}" for key, item in value.items())
        return f"{{ {inner} }}" if inner else "{}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, bool | int | float | str):
        return json.dumps(value, ensure_ascii=False, allow_nan=False).replace("\x7f", "\\u007f")
    raise ValueError(f"TOML has no value {value!r}")


def _key(key: str) -> str:
    return key if key.replace("-", "").replace("_", "").isalnum() and key.isascii() else toml(key)


# Scenarios.


def _scenario(name: str) -> Explained:
    scenario = load_scenario(name)
    lines = [
        f"# scenario {scenario.name}: {scenario.title}",
        *(f"{key} = {toml(getattr(scenario, key))}" for key in ("name", "version", "title")),
        f"default_protocol = {toml(scenario.default_protocol)}\n",
        *_declared("[[tasks]]", scenario.tasks),
        *_declared("[[probes]]", scenario.probes),
        *(
            table
            for key, protocol in scenario.protocols.items()
            for table in _declared_protocol(f"protocols.{_key(key)}", protocol)
        ),
        *_orders(scenario),
        "# What the fields mean.",
    ]
    models: tuple[type[BaseModel], ...] = (Scenario, Task, Probe, Protocol, Training, Views)
    for model in models:
        lines.append(f"#\n# {introduction(model).splitlines()[0]}")
        lines += [indent(_parameter(one), "# ") for one in parameters(model)]
    return Explained("scenario", name, "\n".join(lines) + "\n", scenario.model_dump(mode="json"))


def _orders(scenario: Scenario) -> Iterator[str]:
    """Yield the table of the other orders of the tasks, if there are any."""
    if scenario.orders:
        yield "[orders]"
        yield from (f"{_key(order)} = {toml(tasks)}" for order, tasks in scenario.orders.items())


def _declared(heading: str, parts: tuple[BaseModel, ...]) -> Iterator[str]:
    for part in parts:
        given = part.model_fields_set
        origins = {key: "declared" if key in given else BY_DEFAULT for key, _ in part}
        yield _table(heading, dict(part), origins)


def _declared_protocol(heading: str, protocol: Protocol) -> Iterator[str]:
    inner = ("backbones", "training_for", "defaults")
    given = protocol.model_fields_set
    values = {key: value for key, value in protocol if key not in inner}
    origins = {key: "declared" if key in given else BY_DEFAULT for key in values}
    yield _table(f"[{heading}]", values, origins)
    for field in inner:
        for name, table in getattr(protocol, field).items():
            items = {key: value for key, value in dict(table).items() if value is not None}
            declared = dict.fromkeys(items, "declared")
            yield _table(f"[{heading}.{field}.{_key(name)}]", items, declared)


# Components.


def _component(kind: Kind, name: str) -> Explained:
    word = registry.SINGULAR[kind]
    component = registry.load(kind, name)
    if kind == "datasets":
        from rscl_bench.archives.describe import markdown

        described = parameters(component.Options)
        own = None if component.declared_by_options else component.sensor
        sensor = f"- Sensor: {own.name}\n" if own else ""
        text = f"dataset {markdown(name).removeprefix('### ')}{sensor}"
        place = "options.NAME of a task or a probe"
    else:
        described = parameters(component.Params)
        entry = registry.entries(kind).get(name)
        title = f"{word} {name}" + (f": {entry.summary}" if entry else "")
        place = _place(kind, name)
        facts = (introduction(component), introduction(component.Params))
        text = "\n\n".join([title, *(fact for fact in facts if fact)]) + "\n"
    lines = [_parameter(one) for one in described] or ["  none"]
    full = f"{text}\nParameters ({place}):\n" + "\n".join(lines) + "\n"
    data = {"kind": word, "name": name, "parameters": [one._asdict() for one in described]}
    return Explained(word, name, full, data)


def _place(kind: Kind, name: str) -> str:
    """Return where the parameters of a component are set."""
    default = f"[protocols.NAME.defaults.{name}] of a scenario"
    places: dict[Kind, str] = {
        "objectives": f"[objective] of a recipe, --set objective.NAME=VALUE, or {default}",
        "strategies": f"[[strategies]] of a recipe, --set strategies.{name}.NAME=VALUE, or "
        f"{default}",
        "probes": f"parameters of a [[probes]] of a scenario, or {default}",
        "backbones": "[protocols.NAME.backbone] of a scenario, or --set backbone.NAME=VALUE",
    }
    return places[kind]


def _sensor(name: str) -> Explained:
    sensor = sensor_named(name)
    distance = "varies" if sensor.gsd_m is None else f"{sensor.gsd_m:g} m"
    lines = [
        f"sensor {sensor.name}",
        "",
        f"Bands, in the order of the files, with central wavelength: {sensor.described_bands()}",
        f"Unit of a pixel: {sensor.unit}",
        f"Type of the files: {sensor.dtype}",
        f"Pixel value of full brightness: {sensor.scale:g}",
        f"Ground sample distance: {distance}",
    ]
    data = {
        "kind": "sensor",
        "name": sensor.name,
        "bands": {band.name: band.wavelength_nm for band in sensor.bands},
        "unit": sensor.unit,
        "dtype": sensor.dtype,
        "scale": sensor.scale,
        "gsd_m": sensor.gsd_m,
    }
    return Explained("sensor", name, "\n".join(lines) + "\n", data)


def _parameter(parameter: Parameter) -> str:
    default = "required" if parameter.default is None else f"default {parameter.default}"
    head = f"  {parameter.name}: {parameter.type}; {default}"
    lines = [fill(head, _WIDTH, subsequent_indent="      ", break_long_words=False)]
    if parameter.meaning:
        margin = "      "
        lines.append(
            fill(parameter.meaning, _WIDTH, initial_indent=margin, subsequent_indent=margin)
        )
    return "\n".join(lines)
