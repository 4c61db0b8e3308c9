"""Describes the parameters of a spec: types and bounds, defaults, and meanings from docstrings."""

import inspect
import json
import re
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from rscl_bench.spec import INTEGER_LIMIT

_ENTRY = re.compile(r"^    (\w+): (.*)$")
_SECTION = re.compile(r"^(Attributes|Args|Returns|Raises):$")


class Parameter(NamedTuple):
    """One parameter.

    Attributes:
        name: Name, as in a TOML.
        type: Type and bounds in words.
        default: The default as in JSON; None if a value must be given.
        meaning: What the parameter is, with its unit, from the class's docstring; may be empty.
    """

    name: str
    type: str
    default: str | None
    meaning: str


def parameters(model: type[BaseModel]) -> list[Parameter]:
    """Return the parameters of a spec, in the order of its fields.

    Args:
        model: A class of parameters, such as ``Params`` of an objective.
    """
    _, schema = models_json_schema([(model, "validation")])
    definitions = schema["$defs"]
    properties = definitions[model.__name__].get("properties", {})
    known = meanings(model)
    return [
        Parameter(
            name,
            _type(properties[name], definitions),
            json.dumps(properties[name]["default"]) if "default" in properties[name] else None,
            known.get(name, field.description or ""),
        )
        for name, field in model.model_fields.items()
    ]


def meanings(model: type) -> dict[str, str]:
    """Return what the attributes of a class are, from its docstring and those of its bases."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        found |= _attributes(inspect.cleandoc(base.__dict__.get("__doc__") or ""))
    return found


def introduction(component: type) -> str:
    """Return the docstring of a class up to its first section."""
    lines = inspect.cleandoc(component.__doc__ or "").splitlines()
    ends = [number for number, line in enumerate(lines) if _SECTION.match(line)]
    return "\n".join(lines[: ends[0]] if ends else lines).strip()


def _attributes(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    name, inside = "", False
    for line in text.splitlines():
        if section := _SECTION.match(line):
            inside = section[1] == "Attributes"
        elif inside and (entry := _ENTRY.match(line)):
            name = entry[1]
            found[name] = entry[2]
        elif inside and name and line.startswith("        "):
            found[name] += f" {line.strip()}"
    return found


def _type(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    """Return a type of JSON schema in words."""
    if "$ref" in schema:
        return f"a table {schema['$ref'].rpartition('/')[2]}"
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " or ".join(_type(one, definitions) for one in schema[several])
    if "allOf" in schema:
        return _type(schema["allOf"][0], definitions)
    if "enum" in schema or "const" in schema:
        return " or ".join(map(json.dumps, schema.get("enum") or [schema["const"]]))
    kind = schema.get("type", "any value")
    if kind == "array":
        return _array(schema, definitions)
    words = {"object": "table", "null": "none", "string": "text"}
    return " ".join([words.get(kind, kind), *_bounds(schema)])


def _array(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "prefixItems" in schema:
        inner = [_type(one, definitions) for one in schema["prefixItems"]]
        return f"list of {len(inner)}: {', '.join(dict.fromkeys(inner))}"
    items = schema.get("items")
    return f"list of {_type(items, definitions)}" if items else "list"


def _bounds(schema: dict[str, Any]) -> list[str]:
    integer = schema.get("type") == "integer"
    least, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    most, below = schema.get("maximum"), schema.get("exclusiveMaximum")
    bounds = []
    if integer and above is not None:
        least, above = above + 1, None
    if least is not None:
        bounds.append(f"from {least:g}")
    if above is not None:
        bounds.append(f"above {above:g}")
    if most is not None:
        bounds.append(f"to {most:,}" if integer else f"to {most:g}")
    if below is not None and below != INTEGER_LIMIT:
        bounds.append(f"below {below:g}")
    return bounds
