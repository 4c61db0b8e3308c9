"""Load scenarios and methods from the TOML files of the package or of the user."""

import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from rscl_bench import registry
from rscl_bench.encoder_bands import check_bands
from rscl_bench.errors import SpecError, unknown
from rscl_bench.spec import Method, Name, Probe, Scenario, Source, Spec, validated
from rscl_bench.user_paths import user_path


class _Dataset(Spec):
    """What several tasks and probes of a scenario say alike of one archive; see `Source`."""

    dataset: str
    bands: tuple[str, ...] | None = None
    tile_size: int | None = None
    cut: str | None = None
    options: dict[str, Any] = Field(default={})


class _Datasets(Spec):
    datasets: dict[Name, _Dataset]


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
    """Return a scenario by name or by path to a TOML file, with the bands of every source.

    Args:
        name: The name or path, and after a colon the name of one of the scenario's orders.

    Raises:
        SpecError: If the scenario or the order is unknown or not valid.
    """
    stem, order = _parts(name)
    raw = _read_toml(stem, declarations("scenarios"), "scenario")
    scenario = validated(Scenario, with_datasets(raw, stem), stem)
    return with_bands(scenario.ordered(order) if order else scenario)


def _parts(name: str) -> tuple[str, str]:
    """Return the scenario and the order of ``SCENARIO:ORDER``; an order has no dot nor slash."""
    stem, _, order = name.rpartition(":")
    return (stem, order) if stem and not set(order) & {".", "/", "\\"} else (name, "")


def known_scenario(name: str) -> Scenario | None:
    """Return the scenario of this package that records call by a name; None if there is none.

    Args:
        name: Name of a scenario, or ``NAME-ORDER`` of one of its orders.
    """
    for known in declarations("scenarios"):
        if name == known:
            return load_scenario(known)
        order = name.removeprefix(f"{known}-")
        if order != name and order in load_scenario(known).orders:
            return load_scenario(f"{known}:{order}")
    return None


def load_method(name: str) -> Method:
    """Return a method by name or by path to a TOML file.

    Raises:
        SpecError: If the method is unknown or not valid.
    """
    return validated(Method, _read_toml(name, declarations("methods"), "method"), name)


def is_scenario(name: str) -> bool:
    """Return whether a name or a path to a TOML file is of a scenario, not of a method.

    Raises:
        SpecError: If there is no such scenario or method, or the file is no TOML.
    """
    known = {**declarations("scenarios"), **declarations("methods")}
    return "tasks" in _read_toml(name, known, "scenario or method")


def code_files(*names: str) -> list[Path]:
    """Return the files of code that TOML files name, without running the code.

    Args:
        names: Scenarios and methods, by name or by path; those with a name have no code.

    Raises:
        SpecError: If a TOML file cannot be read.
    """
    stems = [_parts(name)[0] for name in names]
    tomls = [_read_toml(stem, {}, "TOML") for stem in stems if stem.endswith(".toml")]
    files = [registry.file_of(one) for toml in tomls for one in registry.references(toml)]
    return list(dict.fromkeys(files))


def with_datasets(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """Write the tables ``[datasets.NAME]`` of a scenario into the tasks and probes that name them.

    What a task or probe states itself goes before the table, option by option. A scenario that is
    written so has the identity of one in which every task and probe repeats the values.

    Args:
        raw: The values of a TOML.
        where: The file, for messages.

    Raises:
        SpecError: If a table has other keys, no task or probe names it, or a dataset has its name.
    """
    tables = raw.get("datasets")
    if tables is None:
        return raw
    named = validated(_Datasets, {"datasets": tables}, where).datasets
    written = {key: value for key, value in raw.items() if key != "datasets"}
    used = set()
    for kind in ("tasks", "probes"):
        parts = raw.get(kind)
        if isinstance(parts, list) and all(isinstance(part, dict) for part in parts):
            used |= {_known_dataset(part.get("dataset"), named) for part in parts}
            written[kind] = [_written_out(part, tables) for part in parts]
    for name in named:
        if name in registry.entries("datasets"):
            raise SpecError(
                f"{where}: datasets.{name} has the name of a registered dataset; rename it."
            )
        if name not in used:
            raise SpecError(
                f'{where}: no task or probe has dataset = "{name}"; use datasets.{name}, or '
                "delete it."
            )
    return written


def _known_dataset(name: Any, named: Iterable[str]) -> str:
    """Return the name of a dataset; refuse one that is neither in the file nor registered."""
    if not isinstance(name, str) or registry.is_reference(name):
        return ""
    known = [*named, *registry.entries("datasets")]
    if name.partition(":")[0] not in known:
        raise unknown("dataset", name, known)
    return name


def _written_out(part: dict[str, Any], tables: dict[str, Any]) -> dict[str, Any]:
    name = part.get("dataset")
    if not isinstance(name, str) or name not in tables:
        return part
    merged = {**tables[name], **part, "dataset": tables[name]["dataset"]}
    if isinstance(part.get("options", {}), dict):
        merged["options"] = {**tables[name].get("options", {}), **part.get("options", {})}
    return merged


def with_bands(scenario: Scenario) -> Scenario:
    """Return a scenario in which every task and probe has bands of its sensor.

    A task or probe that names no bands reads red, green and blue, or all bands of a sensor that
    lacks one of the three.

    Raises:
        SpecError: If an encoder cannot take the bands under one of the protocols.
    """
    update: dict[str, Any] = {
        "tasks": tuple(task.model_copy(update=_default_bands(task)) for task in scenario.tasks),
        "probes": tuple(p.model_copy(update=_default_bands(p)) for p in scenario.probes),
    }
    stated = scenario.model_copy(update=update)
    for name, protocol in stated.protocols.items():
        check_bands(stated, name, protocol)
    return stated


def _default_bands(part: Source | Probe) -> dict[str, Any]:
    known = registry.BUILTIN["datasets"].get(part.dataset)
    if "bands" in part.model_fields_set or (known is not None and known.has_rgb):
        return {}
    adapter = registry.load("datasets", part.dataset).configured(part.options)
    own = tuple(band.name for band in adapter.sensor.bands)
    return {"bands": part.bands if set(part.bands) <= set(own) else own}


def read_toml(path: Path) -> dict[str, Any]:
    """Return the values of a TOML file, which may begin with a byte order mark.

    Raises:
        SpecError: If the file cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise SpecError(f"{path} cannot be read ({error.strerror or error}).") from error
    except RecursionError as error:
        raise _too_deep(path) from error
    except ValueError as error:  # of TOML, of UTF-8, or numbers of thousands of digits
        raise SpecError(f"{path} is not valid TOML: {str(error).rstrip('.')}.") from error


def _read_toml(name: str, known: dict[str, Path], what: str) -> dict[str, Any]:
    if name.endswith(".toml"):
        path = user_path(name, "The TOML")
        if not path.is_file():
            raise SpecError(f"There is no file '{name}'; give a path to a TOML, or a known name.")
    else:
        if name not in known:
            raise unknown(what, name, known)
        path = known[name]
    folder = path.parent
    try:
        resolved: dict[str, Any] = registry.replaced(
            read_toml(path), lambda reference: registry.absolute(reference, folder)
        )
    except RecursionError as error:
        raise _too_deep(path) from error
    return resolved


def _too_deep(path: Path) -> SpecError:
    return SpecError(f"{path} nests tables or lists too deeply; give each its own line.")
