"""The scenario and the settings of a run that continues a finished run by further tasks."""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field

from rscl_bench import registry
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.engine.parent import ParentRun
from rscl_bench.engine.prepare import PreparedRun, class_name, scenario_content
from rscl_bench.errors import SpecError
from rscl_bench.resolve import resolve_run
from rscl_bench.results.differences import first_difference
from rscl_bench.spec import NAME_LENGTH, Method, Protocol, RunSpec, Scenario, Spec, validated

_NO_NAME = re.compile(r"[^a-z0-9]+")


class NewTask(Spec):
    """A task that is given by options, in place of a scenario.

    Attributes:
        dataset: A registered dataset.
        split: Split of the dataset.
        name: Name of the task; the dataset's name if None.
        tile_size: As in `rscl_bench.spec.Source`; that of the run's last task if None.
        cut: As in `rscl_bench.spec.Source`; that of the run's last task if None.
        bands: As in `rscl_bench.spec.Source`; the sensor's default if None.
        options: Options of the dataset class.
    """

    dataset: str
    split: str
    name: str | None = None
    tile_size: int | None = None
    cut: Literal["grid", "whole"] | None = None
    bands: tuple[str, ...] | None = None
    options: dict[str, Any] = Field(default={})

    def task_name(self) -> str:
        """Return the name of the task."""
        if self.name is not None:
            return self.name
        return _NO_NAME.sub("-", self.dataset.lower()).strip("-")[:NAME_LENGTH]


def longer_scenario(
    parent: ParentRun, scenario: Scenario | None, task: Mapping[str, Any]
) -> Scenario:
    """Return the scenario of the longer stream, given as a whole or by one task.

    Args:
        parent: The finished run.
        scenario: The whole scenario; None if the task is given.
        task: Values of `NewTask`.

    Raises:
        SpecError: If both are given, or neither, or the task is not valid.
    """
    if (scenario is None) == (not task):
        raise SpecError(
            "Say what comes next: give --scenario with a TOML that goes on where the run ends, or "
            "--dataset and --split."
        )
    if scenario is not None:
        return scenario
    missing = [f"--{key}" for key in ("dataset", "split") if key not in task]
    if missing:
        raise SpecError(f"The next task lacks {' and '.join(missing)}; give --dataset and --split.")
    return scenario_with(parent, validated(NewTask, dict(task), "The next task"))


def scenario_with(parent: ParentRun, new: NewTask) -> Scenario:
    """Return the scenario of a run with one more task, and a probe of its domain where it has one.

    The scenario is named after the run's scenario and the task, because it is another one. The
    probe is ML-kNN on the splits ``train``, ``val`` and ``test`` of the dataset. A dataset without
    labels, without these splits, or of a probe that the run has already, gets no probe.

    Raises:
        SpecError: If the run's scenario names classes by path, the task's name is taken, or a value
            is not valid.
    """
    identity, described = parent.record.identity, parent.state.description
    if registry.is_reference(new.dataset):
        raise SpecError(
            f"'{new.dataset}' is a path to a class; name the class in a TOML whose first tasks are "
            "those of the run, and give the TOML as --scenario."
        )
    by_path = next(_by_path([described.scenario, identity.protocol["backbone"]]), None)
    if by_path is not None:
        raise SpecError(
            f"The scenario of this run names the class {by_path.partition('@')[0]} by path; write "
            "a TOML whose first tasks are those of the run, and give the TOML as --scenario."
        )
    name = new.task_name()
    tasks, probes = described.scenario["tasks"], described.scenario["probes"]
    if name in {task["name"] for task in tasks}:
        raise SpecError(f"The run has a task '{name}' already; give the new task another --name.")
    source = {
        "dataset": new.dataset,
        "tile_size": tasks[-1]["tile_size"] if new.tile_size is None else new.tile_size,
        "cut": tasks[-1]["cut"] if new.cut is None else new.cut,
        "options": new.options,
        **({} if new.bands is None else {"bands": list(new.bands)}),
    }
    raw = {
        "name": f"{identity.scenario.name}-{name}",
        "version": identity.scenario.version,
        "title": f"{identity.scenario.name}, then {name}",
        "tasks": [*tasks, {"name": name, "split": new.split, **source}],
        "probes": [*probes, *_probe_of(new, name, source, probes)],
        "default_protocol": identity.protocol_name,
        "protocols": {identity.protocol_name: _declared(identity.protocol)},
    }
    return validated(Scenario, raw, f"The task '{name}'")


def _declared(protocol: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recorded protocol in a form that a scenario can declare.

    An assignment of fewer epochs may end before the protocol's warm-up, which the method then
    shortens. The assignment is applied again to the scenario, so its epochs do not matter here.
    """
    training = protocol["training"]
    least = math.floor(training["warmup_epochs"]) + 1
    return {**protocol, "training": {**training, "epochs": max(training["epochs"], least)}}


def _probe_of(
    new: NewTask, name: str, source: dict[str, Any], probes: Sequence[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    adapter = adapter_class(new.dataset, new.options)
    known = any(name == one["name"] or new.dataset == one["dataset"] for one in probes)
    if adapter.classes and {"train", "test"} <= set(adapter.splits) and not known:
        val = {"val_split": "val"} if "val" in adapter.splits else {}
        yield {"name": name, "task": name, **val, **source}


def extended_spec(parent: ParentRun, scenario: Scenario, method: Method | None) -> RunSpec:
    """Return the run that continues a finished run through a longer scenario.

    Args:
        parent: The finished run.
        scenario: A scenario whose first tasks are those of the run.
        method: The recipe of the run; needed only if it names classes by path.

    Raises:
        SpecError: If scenario, protocol or method do not continue the run, or a strategy needs all
            tasks at once.
    """
    identity = parent.record.identity
    if method is None:
        by_path = next(_by_path(identity.method), None)
        if by_path is not None:
            raise SpecError(
                f"The method of this run names the class {by_path.partition('@')[0]} by path; give "
                "its TOML as --method."
            )
        method = Method.model_validate_json(json.dumps(identity.method))
    for component in method.strategies:
        if registry.load("strategies", component.name).whole_stream:
            raise SpecError(
                f"Strategy '{component.name}' trains on the images of all tasks at once, so its "
                "runs cannot be extended; run the method on the longer scenario."
            )
    spec = resolve_run(
        scenario, method, identity.protocol_name, identity.seed, dict(identity.overrides)
    )
    _check_scenario(parent, spec.scenario)
    own = registry.portable(spec.protocol.model_dump(mode="json"))
    known = dict(identity.protocol)
    used, before = own.pop("defaults", {}), known.pop("defaults", {})
    field = first_difference("protocol", own, known) or first_difference(
        "method", registry.portable(spec.method.model_dump(mode="json")), identity.method
    )
    if field:
        raise SpecError(
            f"'{field}' differs from that of the run in {parent.path.parent}; a stream goes on "
            "under its own settings."
        )
    # A recipe that states every parameter hides the protocol's defaults, which are recorded too.
    defaults = {**used, **before} if isinstance(before, dict) else used
    protocol = Protocol.model_validate({**spec.protocol.model_dump(), "defaults": defaults})
    return spec.model_copy(update={"protocol": protocol})


def _check_scenario(parent: ParentRun, scenario: Scenario) -> None:
    """Refuse a scenario that does not go on where the run ended."""
    content = scenario_content(scenario)
    known = parent.state.description.scenario
    if len(content["tasks"]) <= parent.tasks:
        raise SpecError(
            f"Scenario {scenario.name} has {len(content['tasks'])} tasks, and the run has been "
            f"trained on {parent.tasks}; add a task."
        )
    for number, (own, before) in enumerate(zip(content["tasks"], known["tasks"], strict=False)):
        field = first_difference(f"tasks.{number}", own, before)
        if field:
            raise SpecError(
                f"'{field}' of scenario {scenario.name} differs from that of the run in "
                f"{parent.path.parent}; its first {parent.tasks} tasks must be those of the run."
            )
    before_by_name = {probe["name"]: probe for probe in known["probes"]}
    for own in content["probes"]:
        field = first_difference(f"probes.{own['name']}", own, before_by_name.get(own["name"], own))
        if field:
            raise SpecError(
                f"'{field}' of scenario {scenario.name} differs from that of the run in "
                f"{parent.path.parent}; give a changed probe another name."
            )


def _by_path(value: Any) -> Iterator[str]:
    """Yield the classes by path in recorded values, ``file.py:Class@`` and digits."""
    if isinstance(value, list):
        for item in value:
            yield from _by_path(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("name", "dataset", "probe") and isinstance(item, str) and "@" in item:
                yield item
            elif isinstance(item, dict | list):
                yield from _by_path(item)


def check_plugins(parent: ParentRun, plugins: Sequence[BaseSGDPlugin]) -> None:
    """Refuse other Avalanche plugins than those of the run.

    Raises:
        SpecError: If the class names differ.
    """
    before, given = parent.record.identity.plugins, tuple(map(class_name, plugins))
    if before != given:
        raise SpecError(
            f"The plugins of the run are {', '.join(before) or 'none'}, and given are "
            f"{', '.join(given) or 'none'}; extend the run from Python with its own plugins."
        )


def new_tasks(prepared: PreparedRun) -> Iterator[str]:
    """Yield a line for each task that comes next, and for what cannot be evaluated."""
    parent, scenario = prepared.parent, prepared.spec.scenario
    assert parent is not None
    for number, task in enumerate(scenario.tasks[parent.tasks :], start=parent.tasks + 1):
        yield (
            f"task {number} {task.name}: {registry.portable(task.dataset)}, split {task.split}, "
            f"{' '.join(task.bands)}, tiles of {task.tile_size} pixels, cut {task.cut}"
        )
        if not any(probe.task == task.name for probe in scenario.probes):
            yield f"note: no probe has the domain of task '{task.name}'; a TOML can add one"
    for name in prepared.gone:
        yield f"note: the archive of probe '{name}' is not there, so its scores end with the run"
