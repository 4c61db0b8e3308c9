"""Select the runs of a sweep: every method, or every point of a grid, with every seed."""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

from rscl_bench.errors import SpecError
from rscl_bench.resolve import parse_value, resolve_run
from rscl_bench.spec import Method, RunSpec, Scenario, is_method_key


class PlannedRun(NamedTuple):
    """A run, labelled by its method or by its point of a grid."""

    label: str
    spec: RunSpec


def method_runs(
    scenario: Scenario,
    methods: Sequence[Method],
    seeds: Sequence[int],
    protocol: str | None,
    overrides: Mapping[str, Any],
) -> list[PlannedRun]:
    """Return the runs of all methods: first with the first seed, then with the next seed.

    Args:
        scenario: The scenario.
        methods: The recipes.
        seeds: The seeds.
        protocol: As in `resolve_run`.
        overrides: As in `resolve_run`, for every method.

    Raises:
        SpecError: If a value is unknown or not valid, two methods have the same name, or only some
            methods have the strategy of an override.
    """
    _require_distinct("--methods", [method.name for method in methods])
    _require_distinct("--seeds", [str(seed) for seed in seeds])
    for key in overrides:
        _require_in_all(key, methods)
    return [
        PlannedRun(method.name, resolve_run(scenario, method, protocol, seed, overrides))
        for seed in seeds
        for method in methods
    ]


def grid_runs(
    scenario: Scenario,
    method: Method,
    grid: Mapping[str, Sequence[Any]],
    seeds: Sequence[int],
    protocol: str | None,
    overrides: Mapping[str, Any],
) -> list[PlannedRun]:
    """Return the runs of all points of a grid: first with the first seed, then with the next seed.

    Args:
        scenario: The scenario.
        method: The recipe.
        grid: Values by parameter; the last parameter varies fastest.
        seeds: The seeds.
        protocol: As in `resolve_run`.
        overrides: As in `resolve_run`, for every point.

    Raises:
        SpecError: If a value is unknown or not valid, two points are equal, or no probe has a
            validation split.
    """
    if not any(probe.val_split for probe in scenario.probes):
        raise SpecError(
            f"No probe of scenario {scenario.name} has a validation split, and settings "
            "are never chosen on a test split; give a probe a val_split."
        )
    for key in grid:
        if not is_method_key(key):
            raise _not_a_grid(key)
    for key, values in grid.items():
        _require_distinct("--grid", [f"{key}={value}" for value in values])
    _require_distinct("--grid and --set", [*grid, *overrides])
    _require_distinct("--seeds", [str(seed) for seed in seeds])
    planned = []
    for seed in seeds:
        for values in product(*grid.values()):
            point = dict(zip(grid, values, strict=True))
            spec = resolve_run(scenario, method, protocol, seed, {**overrides, **point})
            planned.append(PlannedRun(_label(point), spec))
    per_seed = planned[: len(planned) // len(seeds)]
    for first, second in combinations(per_seed, 2):
        if first.spec.method == second.spec.method:
            raise SpecError(
                f"'{first.label}' and '{second.label}' are the same setting; remove one of them."
            )
    return planned


def parse_grid(texts: Sequence[str]) -> dict[str, list[Any]]:
    """Return the values of ``key=value,value`` texts by key.

    Raises:
        SpecError: If a text has no ``=``, or a key or value occurs twice.
    """
    grid: dict[str, list[Any]] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals:
            raise _not_a_grid(text)
        if key.strip() in grid:
            raise SpecError(f"'{key.strip()}' is in --grid twice; remove one of them.")
        grid[key.strip()] = [parse_value(value) for value in split_list("--grid", values)]
    return grid


def split_list(option: str, text: str) -> list[str]:
    """Return the values of a comma-separated option.

    Raises:
        SpecError: If a value is empty or occurs twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise SpecError(f"{option} takes a list such as a,b,c without empty values; got '{text}'.")
    _require_distinct(option, parts)
    return parts


def split_seeds(text: str) -> list[int]:
    """Return the seeds of a comma-separated option.

    Raises:
        SpecError: If a seed is not a whole number from 0, or occurs twice.
    """
    parts = split_list("--seeds", text)
    for part in parts:
        # 2^63 has 19 digits; `int` refuses thousands of digits.
        if not (part.isascii() and part.isdecimal() and len(part) < 20):
            raise SpecError(
                "--seeds takes whole numbers from 0 to 2^63 - 1, as in 0,1,2; got "
                f"'{part[:40]}{'...' if len(part) > 40 else ''}'."
            )
    seeds = [int(part) for part in parts]
    _require_distinct("--seeds", [str(seed) for seed in seeds])
    return seeds


def _label(point: Mapping[str, Any]) -> str:
    texts = {k: v if isinstance(v, str) else json.dumps(v) for k, v in point.items()}
    return ", ".join(f"{key}={text}" for key, text in texts.items())


def _not_a_grid(text: str) -> SpecError:
    return SpecError(
        "--grid takes a parameter of the objective, of a strategy or of the optimiser with its "
        f"values, as in strategies.ewc.weight=1,10,100 or training.learning_rate=1e-4,1e-3; got "
        f"'{text}'."
    )


def _require_in_all(key: str, methods: Sequence[Method]) -> None:
    """Refuse an override for a strategy that only some methods have."""
    owner = key.rpartition(".")[0]
    having = [m.name for m in methods if owner in {f"strategies.{s.name}" for s in m.strategies}]
    lacking = [method.name for method in methods if method.name not in having]
    if having and lacking:
        raise SpecError(
            f"--set {key} is for every method of a sweep, but {', '.join(lacking)} "
            f"{'has' if len(lacking) == 1 else 'have'} no {owner}; "
            f"run {', '.join(having)} in another sweep."
        )


def _require_distinct(option: str, parts: Sequence[str]) -> None:
    """Refuse an empty list, and a value that occurs twice."""
    if not parts:
        raise SpecError(f"{option} names nothing; give at least one.")
    for part in parts:
        if parts.count(part) > 1:
            raise SpecError(f"'{part}' is in {option} twice; remove one of them.")
