"""Scenario, protocol, method and run specs: strict, frozen models, and one identity hash."""

import json
from hashlib import sha256
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rscl_bench.canonical import canonical_json
from rscl_bench.errors import SpecError, unknown


class Spec(BaseModel):
    """Base of all specs: frozen, unknown keys refused, no silent coercion of numbers to text."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Positive = Annotated[int, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
#: Real archives, or synthetic sketches of them.
Edition = Literal["real", "sketch"]
#: What happens at an image that cannot be used.
OnBadTile = Literal["stop", "skip"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Source(Spec):
    """Tiles of one dataset split: what is read, which bands, how it is cut.

    Attributes:
        dataset: Registered dataset, or ``file.py:Class``.
        split: Split of the dataset.
        bands: Band names, in the order the encoder sees them.
        tile_size: Side of the stored tiles in pixels.
        cut: ``grid`` cuts non-overlapping tiles and drops the remainder at the right and bottom;
            ``whole`` resizes each image to one tile.
        options: The dataset's own options.
    """

    dataset: str
    split: str
    bands: tuple[str, ...] = ("red", "green", "blue")
    tile_size: Positive
    cut: Literal["grid", "whole"] = "grid"
    options: dict[str, Any] = {}


class Task(Source):
    """One unlabelled task of the stream."""

    name: Name


class Probe(Spec):
    """One frozen-encoder evaluation on labelled tiles.

    Attributes:
        name: Name of the column on the leaderboard.
        probe: Registered probe.
        task: Name of the task whose domain the tiles are from; None for an outside domain.
        dataset: As in `Source`.
        train_split: Split that the probe is fitted on.
        val_split: Split that choices may be made on; None where the archive has none.
        test_split: Split that is reported.
        bands: As in `Source`.
        tile_size: As in `Source`.
        cut: As in `Source`.
        min_share: Share of a tile's pixels that a class must exceed to count as present, where
            labels are derived from masks.
        max_tiles: Most tiles per split, chosen by a fixed seed; None for all.
        options: The dataset's own options.
        parameters: The probe's own parameters.
    """

    name: Name
    probe: str = "ml-knn"
    task: str | None = None
    dataset: str
    train_split: str = "train"
    val_split: str | None = None
    test_split: str = "test"
    bands: tuple[str, ...] = ("red", "green", "blue")
    tile_size: Positive
    cut: Literal["grid", "whole"] = "grid"
    min_share: Fraction = 0.01
    max_tiles: Positive | None = None
    options: dict[str, Any] = {}
    parameters: dict[str, Any] = {}

    def source(self, split: str) -> Source:
        """Return the tiles of one split of this probe."""
        return Source(
            dataset=self.dataset,
            split=split,
            bands=self.bands,
            tile_size=self.tile_size,
            cut=self.cut,
            options=self.options,
        )

    def splits(self) -> dict[str, str]:
        """Return role (``train``, ``val``, ``test``) to split name, without absent roles."""
        roles = {"train": self.train_split, "val": self.val_split, "test": self.test_split}
        return {role: split for role, split in roles.items() if split is not None}


class Training(Spec):
    """How every task is trained (MAE, Table 8 in its appendix, unless a protocol says otherwise).

    Attributes:
        epochs: Epochs per task.
        batch_size: Images per step; an incomplete last batch is dropped.
        learning_rate: Peak rate, absolute.
        warmup_epochs: Epochs of linear warm-up, counted per step.
        weight_decay: AdamW's, on parameters of two and more dimensions.
        betas: AdamW's.
    """

    epochs: Positive
    batch_size: Positive
    learning_rate: Annotated[float, Field(gt=0)]
    warmup_epochs: Annotated[float, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: tuple[Fraction, Fraction] = (0.9, 0.95)

    @model_validator(mode="after")
    def _warmup_fits(self) -> "Training":
        if self.warmup_epochs >= self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs}) must be below epochs ({self.epochs})"
            )
        return self


class Views(Spec):
    """Random-resized crop and flip, and what pixel values are divided by.

    Attributes:
        min_scale: Smallest share of a tile's area that a crop takes.
        horizontal_flip: Probability of a left-right flip.
        normalisation: ``dataset`` subtracts each archive's own mean and divides by its deviation
            per band, both of its training tiles; ``range`` divides by the unit's full scale.
    """

    min_scale: Annotated[float, Field(gt=0, le=1)] = 0.8
    horizontal_flip: Fraction = 0.5
    normalisation: Literal["dataset", "range"] = "dataset"


class Component(BaseModel):
    """A registered name and its parameters: an objective, a strategy or a backbone."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters, without the name."""
        return dict(self.__pydantic_extra__ or {})


class Protocol(Spec):
    """What is the same for every method on one leaderboard.

    Attributes:
        image_size: Side of the encoder's input in pixels.
        buffer_size: Images of past tasks that a strategy may keep, in all.
        seeds: How many seeds a published row has.
        precision: ``auto`` is bf16 autocast where the device is faster with it, else fp32.
        compile: Whether blocks of the networks are compiled; see `rscl_bench.models.compiled`.
            No part of a run's identity where it is off, as before there was a choice.
        backbone: Registered backbone (``name``) and its parameters.
        training: Epochs, batch, optimiser.
        views: Crop, flip and normalisation.
        defaults: Parameters of objectives, strategies and probes by registered name that a method
            need not state, such as the size of a decoder.
    """

    image_size: Positive
    buffer_size: Positive = 1000
    seeds: Positive = 3
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: Annotated[bool, Field(exclude_if=lambda on: not on)] = False
    backbone: Component
    training: Training
    views: Views = Views()
    defaults: dict[str, dict[str, Any]] = {}


class Scenario(Spec):
    """The ordered tasks, the probes and the protocols.

    Attributes:
        name: Name on the command line.
        version: Raised with any change that changes a number.
        title: One line.
        tasks: In the order of the stream.
        probes: In the order of the tables.
        default_protocol: Protocol of a run that names none.
        protocols: By name.
    """

    name: Name
    version: str
    title: str
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    probes: Annotated[tuple[Probe, ...], Field(min_length=1)]
    default_protocol: str
    protocols: dict[str, Protocol]

    @model_validator(mode="after")
    def _names_agree(self) -> "Scenario":
        tasks = [task.name for task in self.tasks]
        probes = [probe.name for probe in self.probes]
        for names, what in ((tasks, "tasks"), (probes, "probes")):
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have the same name")
        for probe in self.probes:
            if probe.task is not None and probe.task not in tasks:
                raise ValueError(f"probe '{probe.name}' is of unknown task '{probe.task}'")
        if self.default_protocol not in self.protocols:
            raise ValueError(f"default_protocol '{self.default_protocol}' is not in protocols")
        parts: tuple[Source | Probe, ...] = (*self.tasks, *self.probes)
        counts = {len(part.bands) for part in parts}
        if len(counts) != 1:
            raise ValueError("all tasks and probes must give the encoder the same number of bands")
        return self

    @property
    def channels(self) -> int:
        """Number of bands that the encoder sees."""
        return len(self.tasks[0].bands)


class Method(Spec):
    """A recipe: one objective and any strategies, in the order in which they act.

    Attributes:
        name: Name on the command line and the leaderboard.
        title: One line.
        objective: The self-supervised loss.
        strategies: What fights forgetting; none for plain fine-tuning.
    """

    name: Name
    title: str
    objective: Component
    strategies: tuple[Component, ...] = ()


class RunSpec(Spec):
    """Scenario × protocol × method × seed, all resolved: what a run is.

    Attributes:
        scenario: The scenario.
        protocol_name: Name of the protocol within the scenario.
        protocol: The protocol, with overrides.
        method: The recipe, with overrides.
        seed: The seed.
        overrides: ``--set`` assignments, sorted; they become part of the row's name.
    """

    scenario: Scenario
    protocol_name: str
    protocol: Protocol
    method: Method
    seed: Annotated[int, Field(ge=0)]
    overrides: dict[str, Any] = {}


SpecType = TypeVar("SpecType", bound=BaseModel)


def validated(model: type[SpecType], raw: Any, where: str) -> SpecType:
    """Validate raw values against a model, with one clear sentence on failure.

    Args:
        model: The pydantic model.
        raw: What was read.
        where: File or option, for the sentence.

    Returns:
        The model's instance.

    Raises:
        SpecError: On the first thing that is wrong.
    """
    try:
        # Strict JSON takes a list for a tuple, but neither "5" nor true for an integer.
        return model.model_validate_json(json.dumps(raw, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "extra_forbidden":
            key = ".".join(str(part) for part in first["loc"])
            fields = _fields_at(model, first["loc"][:-1])
            raise unknown(f"key in {where}:", key, fields) from error
        raise SpecError(f"{where} is not valid: {first_problem(error)}.") from error


def first_problem(error: ValidationError) -> str:
    """Return the first problem as a clause, such as ``field 'seed': Input should be ..., got -1``.

    A model's own check names its fields itself, so the clause is its message alone.
    """
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not first["loc"]:
        return message
    field = ".".join(str(part) for part in first["loc"])
    got = f", got {first['input']!r:.60}"
    # The input of a missing field is its parent, and other containers are too long to show.
    shown = not isinstance(first["input"], dict | list | tuple)
    return f"field '{field}': {message}{got if shown else ''}"


def _fields_at(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    current = model
    for part in place:
        field = None if isinstance(part, int) else current.model_fields.get(part)
        if field is None:  # the place in a list, or a name that the user chose, as a protocol's
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        current = models[0] if models else current
    prefix = ".".join(str(part) for part in place)
    return [f"{prefix}.{name}" if prefix else name for name in current.model_fields]


def identity(payload: dict[str, Any]) -> str:
    """Return the hash of a run's identity: 16 hexadecimal digits of SHA-256 over canonical JSON.

    Args:
        payload: Allow-listed fields only, JSON-able; see `rscl_bench.results.schema.Identity`.
    """
    return sha256(canonical_json(payload)).hexdigest()[:16]


def is_method_key(key: str) -> bool:
    """Return whether a ``--set`` key names a parameter of the method, not of the protocol.

    Such keys are ``objective.PARAMETER`` and ``strategies.NAME.PARAMETER``.
    """
    return key.split(".")[0] in ("objective", "strategies")


def edition_folder(scenario: str, edition: Edition) -> str:
    """Return the folder name of a scenario; names of sketch editions end with ``-sketch``."""
    return scenario if edition == "real" else f"{scenario}-{edition}"
