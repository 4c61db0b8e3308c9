"""A study: sweeps and grids that one TOML declares, and that one command runs and publishes."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from rscl_bench.declarations import read_toml
from rscl_bench.errors import SpecError, unknown
from rscl_bench.spec import Name, ProtocolName, Seed, Spec, validated
from rscl_bench.user_paths import user_path


class Stage(Spec):
    """One sweep, or one grid, of a study.

    Attributes:
        name: Name of the stage on the command line.
        scenario: Known scenario, or a path to a TOML, relative to the study's file.
        protocol: A protocol of the scenario; None for the scenario's default.
        methods: Known methods, or paths to TOMLs, relative to the study's file.
        seeds: Seeds of the runs.
        set: Values that override the protocol and the recipes, by key as in ``--set``.
        grid: Values to try by parameter, as in ``rscl-bench tune``; empty for a sweep. The grid is
            tuned for every method.
    """

    name: Name
    scenario: str
    protocol: ProtocolName | None = None
    methods: Annotated[tuple[str, ...], Field(min_length=1)]
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    set: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = Field(default_factory=dict)

    def points(self) -> int:
        """Return the number of runs."""
        count = len(self.methods) * len(self.seeds)
        for values in self.grid.values():
            count *= len(values)
        return count


class Study(Spec):
    """Stages in the order in which they run.

    Attributes:
        title: Description in one line.
        publish: Folder of published results, relative to the study's file: its ``records`` takes
            the records of sweeps, its ``tuning`` the choices and records of grids.
        stages: The stages.
    """

    title: str
    publish: str
    stages: Annotated[tuple[Stage, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _names_differ(self) -> "Study":
        names = [stage.name for stage in self.stages]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two stages have the name '{name}'")
        return self

    def chosen(self, names: Iterable[str]) -> list[Stage]:
        """Return the stages of some names, in the order of the study; all if no name is given.

        Raises:
            SpecError: If a name is unknown.
        """
        wanted = list(names)
        known = {stage.name: stage for stage in self.stages}
        for name in wanted:
            if name not in known:
                raise unknown("stage", name, known)
        return [stage for stage in self.stages if not wanted or stage.name in wanted]


def load_study(path: str | Path) -> Study:
    """Read a study; paths in it become relative to the file's folder.

    Raises:
        SpecError: If the file cannot be read, or a value is not valid.
    """
    file = user_path(path, "The study")
    if not file.is_file():
        raise SpecError(f"There is no study '{path}'; give a path to its TOML.")
    study = validated(Study, read_toml(file), str(path))
    folder = file.resolve().parent

    def placed(name: str) -> str:
        return str((folder / name).resolve()) if name.endswith(".toml") else name

    stages = tuple(
        stage.model_copy(
            update={
                "scenario": placed(stage.scenario),
                "methods": tuple(placed(method) for method in stage.methods),
            }
        )
        for stage in study.stages
    )
    publish = str((folder / study.publish).resolve())
    return study.model_copy(update={"publish": publish, "stages": stages})
