"""What callers give, as the objects that the package works with."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    from rscl_bench.spec import Method, RunSpec, Scenario
    from rscl_bench.sweeps.selection import PlannedRun

#: Values of ``set`` by key. A key is a field of the protocol (``training.epochs``), of the
#: objective (``objective.mask_ratio``) or of a strategy (``strategies.ewc.weight``).
Settings = Mapping[str, Any]


def as_scenario(scenario: "str | Path | Scenario") -> "Scenario":
    """Return a scenario with the bands of every task, and load changed code by path anew."""
    from rscl_bench import declarations, registry

    registry.reload_changed()  # every call that runs code by path begins here
    if isinstance(scenario, str | Path):
        return declarations.load_scenario(str(scenario))
    return declarations.with_bands(scenario)


def as_method(method: "str | Path | Method") -> "Method":
    """Return a method by name or path, or the method itself."""
    if not isinstance(method, str | Path):
        return method
    from rscl_bench import declarations

    return declarations.load_method(str(method))


def as_run_spec(
    scenario: "str | Path | Scenario",
    method: "str | Path | Method",
    protocol: str | None,
    seed: int,
    set: Settings | None,
) -> "RunSpec":
    """Return the run of a scenario, method, protocol, seed and settings."""
    from rscl_bench.resolve import resolve_run

    return resolve_run(as_scenario(scenario), as_method(method), protocol, seed, dict(set or {}))


def with_init(spec: "RunSpec", init: str | Path | None) -> "RunSpec":
    """Return a run whose encoder starts from a file, if one is given."""
    if init is None:
        return spec
    from rscl_bench.engine.initial import initial_weights

    weights = initial_weights(user_path(init, "The file of initial weights").resolve())
    return spec.model_copy(update={"init": weights})


def all_with_init(planned: "list[PlannedRun]", init: str | Path | None) -> "list[PlannedRun]":
    """Return runs whose encoders start from a file, if one is given."""
    if init is None:
        return planned
    weights = with_init(planned[0].spec, init).init  # read once
    return [run._replace(spec=run.spec.model_copy(update={"init": weights})) for run in planned]


def record_paths(records: "str | Path | Iterable[str | Path]") -> list[Path]:
    """Return the paths of records."""
    given = [records] if isinstance(records, str | Path) else records
    return [user_path(path, "The path of records") for path in given]


def output_folder(given: str | Path) -> Path:
    """Return the path of an output folder."""
    return user_path(given, "The output folder")


def as_data_root(given: str | Path | None) -> Path | None:
    """Return the folder of real archives, None for the sketch edition."""
    chosen = given or os.environ.get("RSCL_DATA_ROOT")
    return user_path(chosen, "The data root") if chosen else None
