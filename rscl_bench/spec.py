"""Strict, frozen models of scenarios, protocols, methods and runs, and the hash of an identity."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, time
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Discriminator, Field, ValidationError, model_validator

from rscl_bench.canonical import canonical_json
from rscl_bench.errors import SpecError, unknown


class Spec(BaseModel):
    """Base of all specs: instances are frozen, and unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


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
#: As `Probed`, or the average of the encoder that a strategy keeps.
ProbedEncoder = Annotated[
    Literal["student", "teacher", "average"], Field(exclude_if=lambda probed: probed == "student")
]
#: Integers of arrays, files and generators have 64 bits.
INTEGER_LIMIT = 2**63
Positive = Annotated[int, Field(gt=0, lt=INTEGER_LIMIT)]
#: Number of blocks of a network. Blocks are built one by one, so a slip of the keyboard would fill
#: the memory before anything could refuse it.
Depth = Annotated[int, Field(gt=0, le=1000)]
Seed = Annotated[int, Field(ge=0, lt=INTEGER_LIMIT)]
#: A run reads real archives, or synthetic sketches of the archives.
Edition = Literal["real", "sketch"]
#: An image that cannot be used stops packing, or packing skips the image.
OnBadTile = Literal["stop", "skip"]
#: Names are parts of file names, which file systems limit to 255 bytes.
NAME_LENGTH = 64
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=NAME_LENGTH)]
# A version is part of folder names: it has no path separator, and no '-', so that the name of a
# folder splits into its parts.
PathPart = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+]*$", max_length=NAME_LENGTH)]
ProtocolName = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=NAME_LENGTH)
]
_Side = Annotated[int, Field(gt=0, le=65_536)]
_RGB = ("red", "green", "blue")
_Rate = Annotated[float, Field(gt=0)]
_Moment = Annotated[float, Field(ge=0, lt=1)]


class Source(Spec):
    """The tiles of one dataset split: the dataset, its bands, and how images are cut.

    Attributes:
        dataset: Registered dataset, or ``file.py:Class``.
        split: Split of the dataset.
        bands: Names of the stored bands, in their order. The default is red, green and blue, or
            all bands of a sensor that lacks one of the three. The encoder gets these bands, or
            what the protocol's ``bands`` makes of them.
        tile_size: Side of the stored tiles in pixels.
        cut: ``grid`` cuts non-overlapping tiles and drops the remainder at the right and bottom;
            ``whole`` resizes each image to one tile.
        options: Options of the dataset class.
    """

    dataset: str
    split: str
    bands: tuple[str, ...] = _RGB
    tile_size: _Side
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
    bands: tuple[str, ...] = _RGB
    tile_size: _Side
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


def check_warmup(epochs: int, warmup_epochs: float) -> None:
    """Check that a warm-up ends before training does, so that the peak rate is reached.

    Every spec with both fields is checked by this function.

    Raises:
        ValueError: If the warm-up is not shorter than training.
    """
    if warmup_epochs >= epochs:
        raise ValueError(
            f"warmup_epochs ({warmup_epochs}) must be below epochs ({epochs}); lower warmup_epochs "
            "or raise epochs"
        )


_Schedule = Annotated[
    Literal["cosine", "constant"] | None, Field(exclude_if=lambda schedule: schedule is None)
]
_Anneal = Annotated[
    Annotated[float, Field(gt=0, le=1)] | None, Field(exclude_if=lambda share: share is None)
]


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
        clip_norm: Largest norm of the gradient of all trained parameters together; a longer
            gradient is scaled down to this norm. None for no limit. Left out of the identity when
            None, so that records from before this option keep their group.
        schedule: ``cosine`` starts anew in every task: a warm-up, then half a cosine down to 0.
            ``constant`` warms up in the first task alone and then stays at the peak. None is
            ``cosine``, and left out of the identity.
        anneal: Share of a task's last steps in which the rate of ``constant`` falls to 0. The next
            task goes on from the weights before these steps. None for no such steps.
    """

    epochs: Annotated[int, Field(gt=0, le=1_000_000)]
    batch_size: Annotated[int, Field(gt=0, le=1_000_000)]
    learning_rate: _Rate
    warmup_epochs: Annotated[float, Field(ge=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    betas: tuple[_Moment, _Moment] = (0.9, 0.95)
    clip_norm: Annotated[_Rate | None, Field(exclude_if=lambda norm: norm is None)] = None
    schedule: _Schedule = None
    anneal: _Anneal = None

    def check_warmup(self) -> None:
        """Check that the warm-up ends before the training, and before an annealing.

        The protocol's epochs meet the method's warm-up in a run, so this is no check of the class.

        Raises:
            ValueError: If it does not, or an annealing has no constant rate.
        """
        check_warmup(self.epochs, self.warmup_epochs)
        if self.anneal is None:
            return
        if self.schedule != "constant":
            raise ValueError(
                "anneal needs a constant rate; set schedule = 'constant', or leave anneal out"
            )
        if self.warmup_epochs + self.anneal * self.epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs ({self.warmup_epochs}) and the annealed share ({self.anneal}) "
                f"overlap in {self.epochs} epochs; lower one of them"
            )


class Optimisation(Spec):
    """The part of `Training` that a method may set; the rest is equal for all methods.

    Attributes:
        learning_rate: As in `Training`; None for the protocol's value, as for all fields.
        warmup_epochs: As in `Training`.
        weight_decay: As in `Training`.
        betas: As in `Training`.
        clip_norm: As in `Training`.
        schedule: As in `Training`.
        anneal: As in `Training`.
    """

    learning_rate: _Rate | None = None
    warmup_epochs: Annotated[float, Field(ge=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    betas: tuple[_Moment, _Moment] | None = None
    clip_norm: Annotated[_Rate | None, Field(exclude_if=lambda norm: norm is None)] = None
    schedule: _Schedule = None
    anneal: _Anneal = None

    def given(self) -> dict[str, Any]:
        """Return the values that are set."""
        return {
            name: value
            for name, value in self
            if value is not None and name in Optimisation.model_fields
        }


class MethodTraining(Optimisation):
    """The values of `Optimisation` that a recipe has, or that a protocol gives one method.

    Attributes:
        chosen: How the values were chosen: seeds, epochs, grid and split, for the leaderboard's
            header.
    """

    chosen: Annotated[
        Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f|<>\[\]`]+$", max_length=200)] | None,
        Field(exclude_if=lambda chosen: chosen is None),
    ] = None


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


Components = dict[str, dict[str, Any]]
#: How the bands of tasks and probes reach an encoder; see `Protocol`.
BandMode = Literal["grey3", "spectral", "union"]


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
        bands: How bands reach the encoder. Without it, all tasks and probes have equally many
            bands, and the encoder gets these. ``grey3`` gives three bands of each task and probe:
            red, green and blue if it has them, one band three times, or the three that its
            ``bands`` names. ``spectral`` and ``union`` give all bands to a first convolution with
            a kernel for each band, made from the band's wavelength and width, or learnt for the
            band's name; see `rscl_bench.models.band_convolution`. Left out of the identity where
            it is not set.
        backbone: Registered backbone (``name``) and its parameters.
        backbones: Parameters of other backbones by registered name, for runs that choose one of
            them with ``--set backbone.name=NAME``. A run's identity has the chosen one alone.
        training: Epochs, batch size and optimiser.
        training_for: Optimiser settings by name of a method or of an objective. The settings of a
            method stand above those of its objective, and a recipe's own above both.
        views: Crop, flip and normalisation.
        defaults: Default parameters by registered name of an objective, strategy or probe, such as
            the size of a decoder. A recipe overrides these defaults.
    """

    image_size: _Side
    buffer_size: Positive = 1000
    seeds: Positive = 3
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    probed_feature: Annotated[Pool, Field(exclude_if=lambda pool: pool == "patches")] = "patches"
    compile: Annotated[bool, Field(exclude_if=lambda on: not on)] = False
    bands: Annotated[BandMode | None, Field(exclude_if=lambda mode: mode is None)] = None
    backbone: Component
    backbones: Annotated[Components, Field(exclude_if=lambda named: not named)] = {}
    training: Training
    training_for: Annotated[
        dict[str, MethodTraining], Field(exclude_if=lambda named: not named)
    ] = {}
    views: Views = Views()
    defaults: Components = {}

    @model_validator(mode="after")
    def _backbones_are_others(self) -> "Protocol":
        if self.backbone.name in self.backbones:
            raise ValueError(
                f"backbones.{self.backbone.name} repeats the protocol's backbone; write its "
                "parameters into backbone"
            )
        return self


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
        orders: Other orders of the tasks by name, each with the names of all tasks. A run of one
            takes ``NAME:ORDER`` as its scenario; see `ordered`.
    """

    name: Name
    version: PathPart
    title: str
    tasks: Annotated[tuple[Task, ...], Field(min_length=1)]
    probes: Annotated[tuple[Probe, ...], Field(min_length=1)]
    default_protocol: str
    protocols: dict[ProtocolName, Protocol]
    orders: dict[Name, tuple[str, ...]] = {}

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
        for protocol in self.protocols.values():
            protocol.training.check_warmup()
        for order, ordered in self.orders.items():
            if sorted(ordered) != sorted(tasks):
                raise ValueError(f"order '{order}' does not name each of the tasks once")
            if list(ordered) == tasks:
                raise ValueError(f"order '{order}' is the order of the tasks")
        return self

    def ordered(self, order: str) -> "Scenario":
        """Return the scenario with its tasks in another order, named ``NAME-ORDER``.

        Args:
            order: Name of one of ``orders``.

        Raises:
            SpecError: If there is no such order, or the name becomes too long.
        """
        if order not in self.orders:
            raise unknown(f"order of scenario {self.name}", order, self.orders)
        name = f"{self.name}-{order}"
        if len(name) > NAME_LENGTH:
            raise SpecError(f"The name {name} is longer than {NAME_LENGTH}; shorten the order's.")
        tasks = {task.name: task for task in self.tasks}
        update = {
            "name": name,
            "title": f"{self.title}; in the order {', '.join(self.orders[order])}",
            "tasks": tuple(tasks[one] for one in self.orders[order]),
            "orders": {},
        }
        return self.model_copy(update=update)

    def bands(self) -> dict[str, tuple[str, ...]]:
        """Return the bands of every task and probe, by ``task 'NAME'`` and ``probe 'NAME'``."""
        named = {f"task '{task.name}'": task.bands for task in self.tasks}
        return named | {f"probe '{probe.name}'": probe.bands for probe in self.probes}


class Method(Spec):
    """A recipe: one objective and any strategies, in the order in which the strategies act.

    Attributes:
        name: Name on the command line and the leaderboard.
        title: Description in one line.
        objective: The self-supervised objective.
        strategies: The continual-learning strategies; empty for plain fine-tuning.
        training: Optimiser settings of the method, in place of the protocol's. None where neither
            the recipe nor anything else gives the method settings of its own.
    """

    name: Name
    title: str
    objective: Component
    strategies: tuple[Component, ...] = ()
    training: Annotated[MethodTraining | None, Field(exclude_if=lambda own: own is None)] = None


class InitialWeights(Spec):
    """A file of weights that the encoder starts from.

    Attributes:
        path: The file.
        digest: SHA-256 of the file.
    """

    path: Path
    digest: str


class RunSpec(Spec):
    """A run: scenario, protocol, method and seed, with a value for every parameter.

    Attributes:
        scenario: The scenario.
        protocol_name: Name of the protocol within the scenario.
        protocol: The protocol after overrides. Its ``training`` is what all methods share.
        method: The recipe after overrides.
        seed: The seed.
        overrides: Assignments of ``--set``, sorted by key. The assignments become part of the name
            of the leaderboard row.
        notes: Sentences on what was resolved in an unexpected way; no part of the identity.
        init: The file that the encoder starts from; None for weights that the seed draws. Its
            digest is part of the identity.
    """

    scenario: Scenario
    protocol_name: str
    protocol: Protocol
    method: Method
    seed: Seed
    overrides: dict[str, Any] = {}
    notes: tuple[str, ...] = ()
    init: InitialWeights | None = None

    @property
    def training(self) -> Training:
        """The training of this run: the protocol's, with the method's own settings."""
        own = {} if self.method.training is None else self.method.training.given()
        return Training(**{**dict(self.protocol.training), **own})

    def trained_protocol(self) -> Protocol:
        """Return the protocol with the training of this run in place of the shared one."""
        return self.protocol.model_copy(update={"training": self.training})


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
    for place, value in _leaves(raw):
        if value is not None and not isinstance(value, str | bool | int | float):
            field = ".".join(place)
            at = f"field '{field}': " if field else ""
            kind = "a date or time" if isinstance(value, date | time) else type(value).__name__
            raise SpecError(
                f"{where} is not valid: {at}{kind} is no value here, got {str(value)!r:.60}; write "
                "a text in quotes."
            )
    try:
        # Strict JSON takes a list for a tuple, but neither "5" nor true for an integer.
        return model.model_validate_json(json.dumps(raw), strict=True)
    except (RecursionError, TypeError, ValueError) as error:
        if isinstance(error, ValidationError):
            raise _refusal(model, where, error) from error
        raise SpecError(f"{where} is not valid: {_cause(error)}.") from error


def _refusal(model: type[BaseModel], where: str, error: ValidationError) -> SpecError:
    """Return the error for the first problem of a validation."""
    first = error.errors()[0]
    if first["type"] == "json_invalid":  # the JSON is ours; its depth and its texts are the user's
        deep = "recursion" in first["msg"]
        reason = _TOO_DEEP if deep else "it holds a text that is no Unicode"
        return SpecError(f"{where} is not valid: {reason}.")
    if first["type"] == "extra_forbidden":
        owner, place = _model_at(model, first["loc"][:-1])
        key = ".".join(map(str, (*place, first["loc"][-1])))
        own = ", ".join(Optimisation.model_fields)
        if issubclass(owner, Optimisation) and first["loc"][-1] in Training.model_fields:
            return SpecError(
                f"{where} is not valid: '{key}' belongs to the protocol, which sets it for all "
                f"methods alike; a method may set {own}."
            )
        prefix = ".".join(map(str, place))
        fields = [f"{prefix}.{name}" if prefix else name for name in owner.model_fields]
        return unknown(f"key in {where}:", key, fields)
    _, place = _model_at(model, first["loc"])
    return SpecError(f"{where} is not valid: {_problem(first, place)}.")


_TOO_DEEP = "tables or lists are nested too deeply"


def _cause(error: Exception) -> str:
    return _TOO_DEEP if isinstance(error, RecursionError) else str(error)


def _leaves(raw: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the place and value of all that is neither a table nor a list."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), raw)]
    while waiting:  # no recursion, since a TOML may be nested deeply
        place, value = waiting.pop()
        if isinstance(value, Mapping):
            waiting += [((*place, str(key)), inner) for key, inner in value.items()]
        elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
            waiting += [((*place, str(index)), inner) for index, inner in enumerate(value)]
        else:
            yield place, value


def first_problem(error: ValidationError) -> str:
    """Return the first problem as a clause, such as ``field 'seed': Input should be ..., got -1``.

    For a validator of the whole model, the clause is the validator's message: the message already
    names the fields.
    """
    first = error.errors()[0]
    return _problem(first, first["loc"])


def _problem(first: Any, place: Sequence[int | str]) -> str:
    message: str = first["msg"].removeprefix("Value error, ").rstrip(".")
    context = first.get("ctx", {})
    if first["type"] == "union_tag_not_found":
        message = f"it lacks its key {context['discriminator']}"
    if first["type"] == "union_tag_invalid":
        message = (
            f"{context['discriminator']} = '{context['tag']:.60}' is none of "
            f"{context['expected_tags']}"
        )
    if not place:
        return message
    field = ".".join(map(str, place))
    got = f", got {first['input']!r:.60}"
    # The input of a missing field is its parent, and other containers are too long to show.
    shown = not isinstance(first["input"], dict | list | tuple)
    return f"field '{field}': {message}{got if shown else ''}"


def _model_at(
    model: type[BaseModel], path: tuple[int | str, ...]
) -> tuple[type[BaseModel], tuple[int | str, ...]]:
    """Return the model at a path within a model, and the path as a user wrote it.

    Where a field takes one of several models, the path of a problem holds the name of the choice.
    """
    current, written = model, []
    choices: list[type[BaseModel]] = []
    for part in path:
        if choices:
            tagged = [one for one in choices if part in _tags(one)]
            current, choices = (tagged or choices)[0], []
            continue
        written.append(part)
        field = None if isinstance(part, int) else current.model_fields.get(part)
        if field is None:  # an index of a list, or a name that the user chose, such as a protocol's
            continue
        models = _models_of(field.annotation)
        choices = models if _is_tagged([field, *field.metadata, field.annotation]) else []
        current = models[0] if models else current
    return current, tuple(written)


def _models_of(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models_of(inner)]


def _is_tagged(parts: Iterable[Any]) -> bool:
    return any(
        isinstance(part, Discriminator)
        or getattr(part, "discriminator", None) is not None
        or _is_tagged(get_args(part))
        for part in parts
    )


def _tags(model: type[BaseModel]) -> list[Any]:
    """Return the texts by one of which a model is chosen among several."""
    return [text for field in model.model_fields.values() for text in get_args(field.annotation)]


def identity(payload: dict[str, Any]) -> str:
    """Return the hash of a run's identity: 16 hexadecimal digits of SHA-256 over canonical JSON.

    Args:
        payload: The allow-listed fields as JSON values; see `rscl_bench.results.schema.Identity`.
    """
    return sha256(canonical_json(payload)).hexdigest()[:16]


def is_method_key(key: str) -> bool:
    """Return whether a ``--set`` key names a parameter of the method, not of the protocol.

    Such keys are ``objective.PARAMETER``, ``strategies.NAME.PARAMETER``, and ``training.FIELD`` for
    the fields of `Optimisation`.
    """
    return key.split(".")[0] in ("objective", "strategies") or is_optimisation_key(key)


def method_overrides(overrides: Mapping[str, Any], method: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``--set`` assignments of a run that change the method, sorted by key.

    Optimiser settings such as ``training.learning_rate`` are the method's where the resolved recipe
    states its training. In records of earlier versions they changed the protocol.

    Args:
        overrides: ``identity.overrides`` of a record.
        method: ``identity.method`` of the record.
    """
    own = "training" in method
    return {
        key: value
        for key, value in sorted(overrides.items())
        if is_method_key(key) and (own or not is_optimisation_key(key))
    }


def is_optimisation_key(key: str) -> bool:
    """Return whether a ``--set`` key is one of the optimiser settings that a method may have."""
    owner, _, field = key.partition(".")
    return owner == "training" and field in Optimisation.model_fields


def edition_folder(scenario: str, edition: Edition) -> str:
    """Return the folder name of a scenario; names of sketch editions end with ``-sketch``."""
    return scenario if edition == "real" else f"{scenario}-{edition}"
