"""Runs of the toy scenario."""

from pathlib import Path
from typing import Any, NamedTuple

from safetensors.torch import load_file

from helpers.archives import sketches
from helpers.paths import TOY
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine.prepare import PreparedRun, open_run
from rscl_bench.engine.run import execute
from rscl_bench.progress import silent
from rscl_bench.resolve import parse_assignments, resolve_run
from rscl_bench.results.folders import run_folder
from rscl_bench.results.schema import RunRecord
from rscl_bench.spec import RunSpec, Scenario
from rscl_bench.testing.tiny import State


class Quiet:
    """Keeps the reports of a run."""

    def __init__(self) -> None:
        self.parts: list[tuple[str, int, int]] = []
        self.lines: list[str] = []

    def progress(self, what: str, done: int, total: int) -> None:
        self.parts.append((what, done, total))

    def message(self, text: str) -> None:
        self.lines.append(text)


class Run(NamedTuple):
    opened: PreparedRun
    folder: Path
    record: RunRecord
    reporter: Quiet

    @property
    def encoder(self) -> State:
        state: State = load_file(self.folder / "encoder.safetensors")
        return state


class Runner:
    """Runs the toy scenario, and executes every run only once."""

    def __init__(self, data: Path, cache: Path, out: Path):
        self.data, self.cache, self.out = data, cache, out
        self._kept: dict[tuple[Any, ...], Run] = {}

    def spec(
        self, method: str = "finetune", seed: int = 0, *assignments: str, **changes: Any
    ) -> RunSpec:
        scenario = load_scenario(str(TOY)).model_copy(update=changes)
        checked = Scenario.model_validate(scenario.model_dump())
        return resolve_run(
            checked, load_method(method), seed=seed, overrides=parse_assignments(assignments)
        )

    def open(self, spec: RunSpec) -> PreparedRun:
        return open_run(spec, sketches(self.data, self.cache), "cpu", silent)

    def fresh(self, spec: RunSpec, out: Path) -> Run:
        opened, reporter = self.open(spec), Quiet()
        folder = run_folder(out, opened.identity)
        return Run(opened, folder, execute(opened, folder, reporter), reporter)

    def __call__(self, method: str, seed: int = 0, *assignments: str) -> Run:
        key = (method, seed, *assignments)
        if key not in self._kept:
            self._kept[key] = self.fresh(self.spec(method, seed, *assignments), self.out)
        return self._kept[key]
