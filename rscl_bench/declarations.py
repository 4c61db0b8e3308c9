"""Load scenarios and methods from the TOML files of the package or of the user."""

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

from rscl_bench.errors import SpecError, unknown
from rscl_bench.resolve import with_parameters
from rscl_bench.spec import Method, Scenario, SpecType, validated

DeclarationKind = Literal["scenarios", "methods"]


@cache
def declarations(kind: DeclarationKind) -> dict[str, Path]:
    """Return the paths of the package's TOML files by name.

    An installed wheel holds the files as package data; an editable install reads the files of the
    checkout. The working directory is never searched.
    """
    package = Path(__file__).parent
    packaged = package / "_declarations" / kind
    folder = packaged if packaged.is_dir() else package.parent / kind
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def load_scenario(name: str) -> Scenario:
    """Return a scenario by name or by path to a TOML file.

    Raises:
        SpecError: If the scenario is unknown or not valid.
    """
    return _load(Scenario, "scenarios", name)


def load_method(name: str) -> Method:
    """Return a method by name or by path to a TOML file.

    Raises:
        SpecError: If the method is unknown or not valid.
    """
    return _load(Method, "methods", name)


def load_any(name: str) -> Scenario | Method:
    """Return a scenario, or a method with all its defaults, by name or by path to a TOML file.

    Raises:
        SpecError: If the scenario or method is unknown or not valid.
    """
    known = {**declarations("scenarios"), **declarations("methods")}
    raw = _read_toml(name, known, "scenario or method")
    if "tasks" in raw:
        return validated(Scenario, raw, name)
    method = validated(Method, raw, name)
    return with_parameters(method, {}, {})


def _load(model: type[SpecType], kind: DeclarationKind, name: str) -> SpecType:
    return validated(model, _read_toml(name, declarations(kind), kind[:-1]), name)


def _read_toml(name: str, known: dict[str, Path], what: str) -> dict[str, Any]:
    if name.endswith(".toml"):
        path = Path(name)
        if not path.is_file():
            raise SpecError(f"There is no file '{name}'; give a path to a TOML, or a known name.")
    else:
        if name not in known:
            raise unknown(what, name, known)
        path = known[name]
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid TOML: {error}.") from error
    resolved: dict[str, Any] = _absolute_references(raw, path.parent)
    return resolved


def _absolute_references(value: Any, folder: Path) -> Any:
    """Resolve every ``./file.py:Class`` against the folder of the TOML file."""
    if isinstance(value, dict):
        return {name: _absolute_references(item, folder) for name, item in value.items()}
    if isinstance(value, list):
        return [_absolute_references(item, folder) for item in value]
    if isinstance(value, str) and ".py:" in value:
        return str((folder / value).resolve())
    return value
