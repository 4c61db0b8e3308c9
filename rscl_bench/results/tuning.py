"""Stores the validation scores of a grid of hyper-parameters, and the chosen setting."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, NonNegativeInt, ValidationError, model_validator

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError, shown
from rscl_bench.results.reading import read_json
from rscl_bench.results.schema import ProtocolName, RunRecord, ScenarioName
from rscl_bench.spec import (
    Edition,
    Fraction,
    Name,
    Spec,
    edition_folder,
    first_problem,
    identity,
    is_method_key,
    is_optimisation_key,
)

Values = dict[str, JsonValue]
FOLDER = "tuning"


class TunedRun(Spec):
    """One run of a setting.

    Attributes:
        seed: Seed of the run.
        record: Id of the run's record.
        scores: Validation micro-mAP by probe, one row after each task.
    """

    seed: NonNegativeInt
    record: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    scores: Annotated[tuple[dict[str, Fraction | None], ...], Field(min_length=1)]


class GridPoint(Spec):
    """One setting of the grid.

    Attributes:
        values: Value of each parameter of the grid.
        runs: One run per seed.
        score: Mean of the validation scores after the last task, over runs and probes.
    """

    values: Values
    runs: Annotated[tuple[TunedRun, ...], Field(min_length=1)]
    score: Fraction


class Tuning(Spec):
    """Results of a grid and the chosen setting; all scores are of validation splits.

    Attributes:
        format: Version of this layout.
        scenario: As in a run record.
        edition: As in a run record.
        protocol_name: As in a run record.
        protocol: Hash of the resolved protocol.
        method: Name of the recipe.
        overrides: ``--set`` assignments of all settings.
        grid: Values by parameter.
        settings: All points of the grid: the product of the values, with the last parameter varying
            fastest.
        choice: Values of the setting with the highest score; of several such settings, the first.
        write: What to write into which table to use the choice; empty in files of earlier versions.
    """

    format: Literal[1] = 1
    scenario: ScenarioName
    edition: Edition
    protocol_name: ProtocolName
    protocol: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    method: Name
    overrides: Values
    grid: dict[str, Annotated[tuple[JsonValue, ...], Field(min_length=1)]]
    settings: Annotated[tuple[GridPoint, ...], Field(min_length=1)]
    choice: Values
    write: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "Tuning":
        points = [
            dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())
        ]
        if [setting.values for setting in self.settings] != points:
            raise ValueError("field 'settings' is not the product of field 'grid'")
        first = self.settings[0].runs
        for index, setting in enumerate(self.settings):
            if [run.seed for run in setting.runs] != [run.seed for run in first]:
                raise ValueError(f"field 'settings.{index}' has other seeds than the first setting")
            if any(list(run.scores[-1]) != list(first[0].scores[-1]) for run in setting.runs):
                raise ValueError(f"field 'settings.{index}' has other probes than the first run")
            if setting.score != _score(setting.runs):
                raise ValueError(f"field 'settings.{index}.score' is not the mean of its runs")
        if self.choice != _best(self.settings).values:
            raise ValueError("field 'choice' is not the first setting with the highest score")
        return self

    def path(self) -> Path:
        """Return ``<scenario>[-sketch]/<protocol>[-<digest8>]/<method>.json``.

        The path has the digest if an override changes the protocol, as in `group_folder`.
        """
        scenario = edition_folder(self.scenario.name, self.edition)
        protocol_changed = any(not is_method_key(key) for key in self.overrides)
        protocol = self.protocol_name + (f"-{self.protocol[:8]}" if protocol_changed else "")
        return Path(scenario) / protocol / f"{self.method}.json"


def make_tuning(keys: Sequence[str], settings: Sequence[Sequence[RunRecord]]) -> Tuning:
    """Choose the setting with the highest mean validation score.

    Args:
        keys: Names of the grid's parameters.
        settings: Records of each setting, one per seed. The settings are in the order of
            `Tuning.settings`.

    Raises:
        ArtefactError: If a validation score is undefined, or the records contradict each other.
    """
    first = settings[0][0].identity
    try:
        points = [_setting(keys, records) for records in settings]
        return Tuning(
            scenario=first.scenario,
            edition=first.edition,
            protocol_name=first.protocol_name,
            protocol=identity(first.protocol),
            method=str(first.method["name"]),
            overrides={key: value for key, value in first.overrides.items() if key not in keys},
            grid={key: tuple(_distinct([point.values[key] for point in points])) for key in keys},
            settings=tuple(points),
            choice=_best(points).values,
            write=(
                *_places(first.method, first.protocol_name, _best(points).values),
                *_reason(keys, points, first.overrides),
            ),
        )
    except ValidationError as error:
        raise ArtefactError(
            f"The grid's results contradict each other: {first_problem(error)}."
        ) from error
    except ValueError as error:
        raise ArtefactError(f"No setting can be chosen: {error}.") from error


def write_tuning(tuning: Tuning, path: Path) -> None:
    """Write a tuning, whole or not at all; an earlier file is replaced.

    Raises:
        ArtefactError: If the file cannot be written.
    """
    write_atomic(path, json.dumps(tuning.model_dump(mode="json"), indent=2, allow_nan=False) + "\n")


def read_tuning(path: Path) -> Tuning:
    """Read a tuning and check that its fields agree with each other.

    Raises:
        ArtefactError: If the file is missing, damaged or edited by hand.
    """
    mend = "restore the file, or tune again"
    text, _ = read_json(path, mend)
    try:
        return Tuning.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ArtefactError(
            f"{path} is no sound tuning: {shown(first_problem(error))}; {mend}."
        ) from error


def _places(
    method: Mapping[str, JsonValue], protocol: str, choice: Mapping[str, JsonValue]
) -> Iterator[str]:
    """Yield, for each chosen value, the tables of the recipe or the protocol that can hold it."""
    objective: Any = method["objective"]
    for key, value in choice.items():
        owner, _, parameter = key.rpartition(".")
        kind, _, component = owner.partition(".")
        if kind == "training":
            recipe, default = "[training]", f"training_for.{method['name']}"
        elif kind == "objective":
            recipe, default = "[objective]", f"defaults.{objective['name']}"
        else:
            recipe, default = f'[[strategies]] named "{component}"', f"defaults.{component}"
        text = json.dumps(value)
        yield (
            f"{parameter} = {text} under {recipe} of the recipe {method['name']}, or under "
            f"[protocols.{protocol}.{default}] for protocol {protocol} alone"
        )


def _reason(
    keys: Sequence[str], points: Sequence[GridPoint], overrides: Mapping[str, JsonValue]
) -> Iterator[str]:
    """Yield the line that tells leaderboards how optimiser settings were chosen."""
    training = [key for key in keys if is_optimisation_key(key)]
    if not training:
        return
    seeds = ", ".join(str(run.seed) for run in points[0].runs)
    values = {key: _distinct([point.values[key] for point in points]) for key in training}
    grid = "; ".join(
        f"{key.partition('.')[2]} {', '.join(map(json.dumps, values[key]))}" for key in training
    )
    more = {key: value for key, value in overrides.items() if key not in keys}
    changed = "".join(f", {key}={json.dumps(value)}" for key, value in more.items())
    reason = f"seed {seeds}{changed}, grid {grid}, on validation"
    yield f"chosen = {json.dumps(reason)} beside them in the same table"


def _setting(keys: Sequence[str], records: Sequence[RunRecord]) -> GridPoint:
    runs = tuple(
        TunedRun(seed=record.identity.seed, record=record.id, scores=_validation(record))
        for record in records
    )
    values = {key: records[0].identity.overrides[key] for key in keys}
    return GridPoint(values=values, runs=runs, score=_score(runs))


def _validation(record: RunRecord) -> tuple[dict[str, float | None], ...]:
    """Return validation micro-mAP after each task, by probe with a validation split."""
    return tuple(
        {name: score.val.micro for name, score in row.items() if score.val is not None}
        for row in record.scores[1:]
    )


def _score(runs: Sequence[TunedRun]) -> float:
    finals = [score for run in runs for score in run.scores[-1].values()]
    defined = [score for score in finals if score is not None]
    if not finals or len(defined) < len(finals):
        raise ValueError("a validation score after the last task is missing or undefined")
    return fmean(defined)


def _best(settings: Sequence[GridPoint]) -> GridPoint:
    # Of several settings with the highest score, `max` returns the first.
    return max(settings, key=lambda setting: setting.score)


def _distinct(values: Sequence[JsonValue]) -> list[JsonValue]:
    distinct: list[JsonValue] = []
    for value in values:
        if value not in distinct:
            distinct.append(value)
    return distinct
