"""Strict, frozen models of scenarios, protocols, methods and runs, and the hash of an identity."""

import json
from hashlib import sha256
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rscl_bench.canonical import canonical_json
from rscl_bench.errors import SpecError, unknown


class Spec(BaseModel):
    """Base of all specs: instances are frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


Positive = Annotated[int, Field(gt=0)]
#: A number of things that are compared with each other; with one of them, the result is constant.
Several = Annotated[int, Field(ge=2)]
Fraction = Annotated[float, Field(ge=0, le=1)]
#: How an encoder's output is pooled: mean over all locations, or class token.
Pool = Literal["patches", "cls"]
#: The encoder that is probed: the trained one, or the moving average that makes the targets. Left
#: out of the identity when "student".
Probed = Annotated[
    Literal["student", "teacher"], Field(exclude_if=lambda probed: probed == "student")
]
#: A run reads real archives, or synthetic sketches of the archives.
Edition = Literal["real", "sketch"]
#: An image that cannot be used stops packing, or packing skips the image.
OnBadTile = Literal["stop", "skip"]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Source(Spec):
    """The tiles of one dataset split: the dataset, its bands, and how images are cut.

    Attributes:
        dataset: Registered dataset, or ``file.py:Class``.
        split: Split of the dataset.
        bands: Names of the bands, in the order of the encoder's input channels.
        tile_size: Side of the stored tiles in pixels.
        cut: ``grid`` cuts non-overlapping tiles and drops the remainder at the right and bottom;
            ``whole`` resizes each image to one tile.
        options: Options of the dataset class.
    """

    dataset: str
    split: str
    bands: tuple[str, ...] = ("red", "green", "blue")
    tile_size: Positive
    cut: Literal["grid", "whole"] = "grid"
    options: dict[str, Any] = {}


class Task(Source):
    """One task of the stream: tiles without labels."""

    name: Name


class Probe(Spec):
    """One evaluation of the frozen encoder on labelled tiles.

    Attributes:
        name: Name of the column on the leaderboard.
        probe: Registered probe.
        task: Name of the task from whose domain the tiles come; None if no task has that domain.
        dataset: As in `Source`.
        train_split: Split on which the probe is fitted.
        val_split: Split on which hyper-parameters are chosen; None if the archive has no
            validation split.
        test_split: Split whose scores are reported.
        bands: As in `Source`.
        tile_size: As in `Source`.
        cut: As in `Source`.
        min_share: Share of a tile's pixels that a class must exceed to count as present, where
            labels are derived from masks.
        max_tiles: Upper limit of tiles per split; a fixed seed draws the tiles. None for all tiles.
        options: Options of the dataset class.
        parameters: Parameters of the probe class.
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
        """Return the split names by role (``train``, ``val``, ``test``), without absent splits."""
        roles = {"train": self.train_split, "val": self.val_split, "test": self.test_split}
        return {role: split for role, split in roles.items() if split is not None}


class Training(Spec):
    """Hyper-parameters of the training of every task.

    The defaults are from the appendix of MAE (He et al., 2022), Table 8.

    Attributes:
        epochs: Epochs per task.
        batch_size: Images per step; an incomplete last batch is dropped.
        learning_rate: Peak learning rate, not scaled by the batch size.
        warmup_epochs: Epochs of linear warm-up; the rate rises at every step.
        weight_decay: Weight decay of AdamW, for parameters of two and more dimensions.
        betas: Decay rates of the moments of AdamW.
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
    """Random-resized crop, random flip, and normalisation of pixels.

    Attributes:
        min_scale: Smallest share of a tile's area that a crop takes.
        horizontal_flip: Probability of a left-right flip.
        normalisation: ``dataset`` subtracts the mean and divides by the deviation per band of the
            training tiles of each archive; ``range`` divides by the full scale of the unit.
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
        """Values of the parameters by name."""
        return dict(self.__pydantic_extra__ or {})


class Protocol(Spec):
    """The settings that all methods on one leaderboard share.

    Attributes:
        image_size: Side of the encoder's input in pixels.
        buffer_size: Number of images of all past tasks together that a strategy may keep.
        seeds: Number of seeds of a published row.
        precision: ``auto`` is bf16 autocast on devices that bf16 speeds up, and fp32 on others.
        probed_feature: How probes pool the encoder's output to one feature per image: mean over all
            locations ("patches"), or class token ("cls"). Left out of the identity when "patches".
        compile: Whether blocks of the networks are compiled; see `rscl_bench.models.compiled`.
            Left out of the identity when false, so that records from before this option keep
            their group.
        backbone: Registered backbone (``name``) and its parameters.
        training: Epochs, batch size and optimiser.
        views: Crop, flip and normalisation.
        defaults: Default parameters by registered name of an objective, strategy or probe, such as
            the size of a decoder. A recipe overrides these defaults.
    """

    image_size: Positive
    buffer_size: Positive = 1000
    seeds: Positive = 3
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    probed_feature: Annotated[Pool, Field(exclude_if=lambda pool: pool == "patches")] = "patches"
    compile: Annotated[bool, Field(exclude_if=lambda on: not on)] = False
    backbone: Component
    training: Training
    views: Views = Views()
    defaults: dict[str, dict[str, Any]] = {}


class Scenario(Spec):
    """The ordered tasks, the probes and the protocols.

    Attributes:
        name: Name on the command line.
        version: Rises with every change that changes a score.
        title: Description in one line.
        tasks: Tasks in the order of the stream.
        probes: Probes in the order of the tables' columns.
        default_protocol: Protocol of a run that names no protocol.
        protocols: Protocols by name.
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
    """A recipe: one objective and any strategies, in the order in which the strategies act.

    Attributes:
        name: Name on the command line and the leaderboard.
        title: Description in one line.
        objective: The self-supervised objective.
        strategies: The continual-learning strategies; empty for plain fine-tuning.
    """

    name: Name
    title: str
    objective: Component
    strategies: tuple[Component, ...] = ()


class RunSpec(Spec):
    """A run: scenario, protocol, method and seed, with a value for every parameter.

    Attributes:
        scenario: The scenario.
        protocol_name: Name of the protocol within the scenario.
        protocol: The protocol after overrides.
        method: The recipe after overrides.
        seed: The seed.
        overrides: Assignments of ``--set``, sorted by key. The assignments become part of the name
            of the leaderboard row.
    """

    scenario: Scenario
    protocol_name: str
    protocol: Protocol
    method: Method
    seed: Annotated[int, Field(ge=0)]
    overrides: dict[str, Any] = {}


SpecType = TypeVar("SpecType", bound=BaseModel)


def validated(model: type[SpecType], raw: Any, where: str) -> SpecType:
    """Validate raw values against a model.

    Args:
        model: The pydantic model.
        raw: The values, as read from TOML or from ``--set``.
        where: The file or option that an error message names.

    Returns:
        The instance of the model.

    Raises:
        SpecError: If a value is not valid; the message names the first problem.
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

    For a validator of the whole model, the clause is the validator's message: the message already
    names the fields.
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


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the dotted names of the fields of the model at a path within a model."""
    current = model
    for part in path:
        field = None if isinstance(part, int) else current.model_fields.get(part)
        if field is None:  # an index of a list, or a name that the user chose, such as a protocol's
            continue
        candidates = [field.annotation, *getattr(field.annotation, "__args__", ())]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        current = models[0] if models else current
    prefix = ".".join(str(part) for part in path)
    return [f"{prefix}.{name}" if prefix else name for name in current.model_fields]


def identity(payload: dict[str, Any]) -> str:
    """Return the hash of a run's identity: 16 hexadecimal digits of SHA-256 over canonical JSON.

    Args:
        payload: The allow-listed fields as JSON values; see `rscl_bench.results.schema.Identity`.
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
