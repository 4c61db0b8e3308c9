"""What a sweep runs: methods or settings of a grid, times seeds."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import NamedTuple

from rscl_bench.errors import SpecError
from rscl_bench.resolve import resolve_run
from rscl_bench.spec import Method, RunSpec, Scenario


class PlannedRun(NamedTuple):
    """A run with what tells it from the others of its seed."""

    label: str
    spec: RunSpec


def method_runs(
    scenario: Scenario,
    methods: Sequence[Method],
    seeds: Sequence[int],
    protocol: str | None,
    assignments: Sequence[str],
) -> list[PlannedRun]:
    """Return every method with the first seed, then with the next.

    Raises:
        SpecError: If anything is unknown or not valid, two methods have one name, or an assignment
            is for a strategy that only some of the methods have.
    """
    _demand_distinct("--methods", [method.name for method in methods])
    for assignment in assignments:
        _demand_common(assignment, methods)
    return [
        PlannedRun(method.name, resolve_run(scenario, method, protocol, seed, tuple(assignments)))
        for seed in seeds
        for method in methods
    ]


def grid_runs(
    scenario: Scenario,
    method: Method,
    grid: Sequence[str],
    seeds: Sequence[int],
    protocol: str | None,
    assignments: Sequence[str],
) -> list[PlannedRun]:
    """Return every setting of a grid with the first seed, then with the next.

    Args:
        scenario: The scenario.
        method: The recipe.
        grid: ``key=value,value`` texts; the last varies fastest.
        seeds: The seeds.
        protocol: As in `resolve_run`.
        assignments: ``--set`` texts, the same for every setting.

    Raises:
        SpecError: If anything is unknown or not valid, or no probe has a validation split.
    """
    if not any(probe.val_split for probe in scenario.probes):
        raise SpecError(
            f"No probe of scenario {scenario.name} has a validation split, and nothing is chosen "
            "on a test split; give a probe a val_split."
        )
    axes = [_axis(text) for text in grid]
    fixed = [assignment.partition("=")[0].strip() for assignment in assignments]
    _demand_distinct("--grid and --set", [*(axis[0].partition("=")[0] for axis in axes), *fixed])
    planned = []
    for seed in seeds:
        for setting in product(*axes):
            spec = resolve_run(scenario, method, protocol, seed, (*setting, *assignments))
            planned.append(PlannedRun(", ".join(setting), spec))
    per_seed = planned[: len(planned) // len(seeds)]
    for one, other in combinations(per_seed, 2):
        if one.spec.method == other.spec.method:
            raise SpecError(f"'{one.label}' and '{other.label}' are one setting; leave one out.")
    return planned


def split_list(option: str, text: str) -> list[str]:
    """Return the parts of a comma-separated option.

    Raises:
        SpecError: If one is empty, or is there twice.
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise SpecError(f"{option} takes a list such as a,b,c without gaps; got '{text}'.")
    _demand_distinct(option, parts)
    return parts


def split_seeds(text: str) -> list[int]:
    """Return the seeds of a comma-separated option.

    Raises:
        SpecError: If one is no whole number from 0, or is there twice.
    """
    parts = split_list("--seeds", text)
    for part in parts:
        if not (part.isascii() and part.isdecimal()):
            raise SpecError(f"--seeds takes whole numbers from 0, as in 0,1,2; got '{part}'.")
    seeds = [int(part) for part in parts]
    _demand_distinct("--seeds", [str(seed) for seed in seeds])
    return seeds


def _axis(text: str) -> list[str]:
    """Return the assignments ``key=value`` of one ``key=value,value``."""
    key, equals, values = text.partition("=")
    if not equals or key.strip().split(".")[0] not in ("objective", "strategies"):
        raise SpecError(
            "--grid takes a parameter of the objective or of a strategy with its values, as in "
            f"strategies.ewc.weight=1,10,100; got '{text}'."
        )
    return [f"{key.strip()}={value}" for value in split_list("--grid", values)]


def _demand_common(assignment: str, methods: Sequence[Method]) -> None:
    """Refuse an assignment for a strategy that only some of the methods have."""
    owner = assignment.partition("=")[0].strip().rpartition(".")[0]
    having = [m.name for m in methods if owner in {f"strategies.{s.name}" for s in m.strategies}]
    lacking = [method.name for method in methods if method.name not in having]
    if having and lacking:
        raise SpecError(
            f"--set {assignment} is for every method of a sweep, but {', '.join(lacking)} "
            f"{'has' if len(lacking) == 1 else 'have'} no {owner}; sweep {', '.join(having)} apart."
        )


def _demand_distinct(option: str, parts: Sequence[str]) -> None:
    for part in parts:
        if parts.count(part) > 1:
            raise SpecError(f"'{part}' is in {option} twice; leave one out.")
