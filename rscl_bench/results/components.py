"""Checks the parameters in a run record against the classes of this version.

The classes need torch, so that reading a record leaves this check out.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError

import rscl_bench
from rscl_bench import registry
from rscl_bench.canonical import canonical_json
from rscl_bench.errors import RsclError, shown
from rscl_bench.registry import Kind
from rscl_bench.results.schema import RunRecord
from rscl_bench.spec import Protocol

# Problems of a value that a version with other parameters may have.
_OF_ANOTHER_VERSION = ("missing", "extra_forbidden")


class Findings(NamedTuple):
    """What is wrong with the parameters of a record, and what cannot be known.

    Attributes:
        problems: One clause per wrong parameter; every clause names a field.
        unknown: Names of components that are not registered here.
    """

    problems: list[str]
    unknown: list[str]


def check_components(record: RunRecord) -> Findings:
    """Check the parameters of objective, strategies, backbone and protocol.

    A component that is not registered here is never imported from the path in the record. In the
    record of another version, a missing or an additional parameter is no problem.
    """
    exact = record.identity.code == rscl_bench.__version__
    problems: list[str] = []
    unknown: list[str] = []
    for kind, field, component in _components(record):
        name = component["name"]
        try:
            if name not in registry.entries(kind):
                unknown.append(f"{kind} '{name}'")
                continue
            params = registry.load(kind, name).Params
        except RsclError:  # a package that offers the component does not work
            unknown.append(f"{kind} '{name}'")
            continue
        values = {key: value for key, value in component.items() if key != "name"}
        problems += _wrong(params, values, field, exact)
    problems += _wrong(Protocol, record.identity.protocol, "identity.protocol", exact)
    return Findings(problems, unknown)


def _components(record: RunRecord) -> Iterator[tuple[Kind, str, dict[str, Any]]]:
    """Yield kind, field and content of the components in a record."""
    method: Any = record.identity.method
    yield "objectives", "identity.method.objective", method["objective"]
    for index, strategy in enumerate(method.get("strategies", [])):
        yield "strategies", f"identity.method.strategies.{index}", strategy
    backbone = record.identity.protocol.get("backbone")
    if isinstance(backbone, dict) and isinstance(backbone.get("name"), str):
        yield "backbones", "identity.protocol.backbone", backbone


def _wrong(model: type[BaseModel], values: Any, field: str, exact: bool) -> Iterator[str]:
    try:
        model.model_validate_json(canonical_json(values), strict=True)
    except ValidationError as error:
        for found in error.errors():
            if not exact and found["type"] in _OF_ANOTHER_VERSION:
                continue
            where = ".".join([field, *map(str, found["loc"])])
            yield shown(f"field '{where}': {found['msg']}, got {found['input']!r:.60}")
