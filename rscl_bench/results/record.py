"""The immutable record of one run: what it is, what it measured, and how it is kept on disk."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError
from rscl_bench.probes.metrics import MultilabelMAP
from rscl_bench.results.consistency import continual_of, problems
from rscl_bench.results.continual import ContinualMetrics
from rscl_bench.spec import Edition, Name, Positive, Spec, identity

FORMAT = 2
RANDOM_ENCODER = "random-encoder"
PIXEL_STATISTICS = "pixel-statistics"

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "lightly",
    "avalanche-lib",
    "torchgeo",
    "numpy",
    "scikit-learn",
)
# Part of folder names, so no separators; without '-' a folder's name can be read back.
PathPart = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+]*$")]
ProtocolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


class ScenarioName(Spec):
    """Which scenario, in which version; ``digest`` is of its tasks and probes, version or not."""

    name: Name
    version: PathPart
    digest: str


class Identity(Spec):
    """What a run is; the record's id is the hash of this and of nothing else.

    Attributes:
        scenario: Name, version, and digest of tasks and probes.
        edition: ``real`` archives, or ``sketch`` ones, which are synthetic.
        protocol_name: Name within the scenario.
        protocol: The resolved protocol.
        method: The resolved recipe, all parameters filled in.
        overrides: ``--set`` assignments.
        seed: The seed.
        precision: What the run used; ``auto`` is resolved.
        data: Digest of every packed split: keys of `consistency.task_key` and
            `consistency.probe_key`.
        code: Version of this package.
    """

    scenario: ScenarioName
    edition: Edition
    protocol_name: ProtocolName
    protocol: dict[str, JsonValue]
    method: dict[str, JsonValue]
    overrides: dict[str, JsonValue]
    seed: NonNegativeInt
    precision: Literal["fp32", "bf16"]
    data: dict[str, Annotated[str, Field(min_length=8)]]
    code: str

    def run_id(self) -> str:
        """Return the hash.

        Raises:
            ValueError: If a value is not finite.
        """
        return identity(self.model_dump(mode="json"))

    def setting(self, *place: str) -> int:
        """Return a whole number of the protocol, such as ``setting("training", "batch_size")``.

        Raises:
            ValueError: If the protocol has no such number.
        """
        value: Any = self.protocol
        for part in place:
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"field 'identity.protocol.{'.'.join(place)}' is no positive integer")
        return value


class Resumption(Spec):
    """Where a run went on after an interruption.

    Attributes:
        task: Number of the task, from 0.
        step: Steps of it that were done.
        changed: What was different from before and may change last bits, one sentence each.
    """

    task: NonNegativeInt
    step: NonNegativeInt
    changed: tuple[str, ...]


class Provenance(Spec):
    """Where and with what a run was made; recorded, not hashed.

    Attributes:
        rscl_bench: Version of this package.
        started: UTC time.
        device_type: ``cpu``, ``cuda``, ...
        device: The device's full name; times are compared within one name only.
        threads: CPU threads of the tensor library.
        python: Version.
        platform: Operating system and architecture.
        versions: Of the packages in `package_versions`.
        resumed: Where the run went on after interruptions.
        matrix_flops: Operations per second of matrix products in the run's precision, measured on
            the device when the run began.
    """

    rscl_bench: str
    started: AwareDatetime
    device_type: str
    device: str
    threads: Positive
    python: str
    platform: str
    versions: dict[str, str | None]
    resumed: tuple[Resumption, ...] = ()
    matrix_flops: PositiveFloat | None = None

    @field_validator("started")
    @classmethod
    def _is_utc(cls, started: AwareDatetime) -> AwareDatetime:
        if started.utcoffset():
            raise ValueError("must be a UTC time")
        return started


class TaskRecord(Spec):
    """Training on one task.

    Attributes:
        name: The task's.
        tiles: Training tiles of the task.
        epochs: Epochs trained.
        steps: Updates, in all epochs; 0 where a strategy trains nothing at this task.
        train_seconds: Synchronised time of the updates and of what strategies did before and after
            them; no packing, probing or checkpoints.
        images_per_second: ``steps × batch size / train_seconds``, of the protocol's batch size;
            None without a step.
        final_loss: Mean over the last epoch; None without a step.
        peak_memory_bytes: The most memory so far: allocated on a GPU in this task, or resident of
            the process since it started, on a CPU; None where it is not known.
        waited_seconds: Part of ``train_seconds`` in which the next tiles were waited for.
        flop_utilisation: The objective's operations per second of training, over the rate of plain
            matrix products, ``provenance.matrix_flops``; None without a step.
    """

    name: Name
    tiles: Positive
    epochs: Positive
    steps: NonNegativeInt
    train_seconds: NonNegativeFloat
    images_per_second: PositiveFloat | None
    final_loss: float | None
    peak_memory_bytes: NonNegativeInt | None
    waited_seconds: NonNegativeFloat | None = None
    flop_utilisation: PositiveFloat | None = None


class Parameters(Spec):
    """How many parameters the encoder has, and how many the run trained."""

    encoder: Positive
    trainable: Positive


class FlopsRecord(Spec):
    """Operations per image of a step of the objective, counted by running one."""

    with_gradient: Positive
    without_gradient: NonNegativeInt


class SpreadRecord(Spec):
    """How far features of the test split are from collapse; see `rscl_bench.probes.spread`."""

    std: NonNegativeFloat
    effective_rank: Annotated[float, Field(ge=1, allow_inf_nan=False)]


class ProbeRecord(Spec):
    """One probe: the registered ``probe``, its task or None, and the size of its test split."""

    name: Name
    probe: str
    task: Name | None
    test_tiles: Positive
    labels: Positive


class ProbeScore(Spec):
    """Scores on the test split, and on the validation split or None."""

    test: MultilabelMAP
    val: MultilabelMAP | None


class ContinualRecord(Spec):
    """Continual metrics of the test split's micro and macro scores, as fractions."""

    micro: ContinualMetrics
    macro: ContinualMetrics


class Seconds(Spec):
    """Where a run's time went; None for packing when the tiles were packed before."""

    packing: NonNegativeFloat | None
    training: NonNegativeFloat
    probing: NonNegativeFloat
    total: NonNegativeFloat


class RunRecord(Spec):
    """All that is kept of a run. Build one with `make_record`.

    Attributes:
        format: Version of this layout.
        id: Hash of ``identity``.
        identity: What the run is.
        provenance: Where and with what it was made.
        tasks: Training, in the order of the stream.
        parameters: Counts.
        probes: In the order of the tables.
        scores: By probe, first of the untrained encoder, then after each task.
        pixel_statistics: By probe, of per-band means and deviations instead of an encoder.
        continual: Derived from ``scores``; kept so that other programs need not derive it.
        image_scores_digest: SHA-256 of the file with the score of every image; see
            `rscl_bench.results.image_scores`.
        seconds: Totals.
        flops: Of the objective; None where they were not counted.
        spread: By probe, in the rows of ``scores``; None where it was not measured.
        skipped: Images that could not be used and were left out, by the keys of ``identity.data``.
    """

    format: Literal[2]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    identity: Identity
    provenance: Provenance
    tasks: Annotated[tuple[TaskRecord, ...], Field(min_length=1)]
    parameters: Parameters
    probes: Annotated[tuple[ProbeRecord, ...], Field(min_length=1)]
    scores: tuple[dict[str, ProbeScore], ...]
    pixel_statistics: dict[str, ProbeScore]
    continual: ContinualRecord
    image_scores_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    seconds: Seconds
    flops: FlopsRecord | None = None
    spread: tuple[dict[str, SpreadRecord], ...] | None = None
    skipped: dict[str, tuple[str, ...]] = Field(default={})

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> "RunRecord":
        problem = next(problems(self), None)
        if problem:
            raise ValueError(problem)
        return self


def package_versions() -> dict[str, str | None]:
    """Return the installed versions that can change a number; None for what is not installed."""
    return {name: _version(name) for name in _PACKAGES}


def make_record(
    *,
    identity: Identity,
    provenance: Provenance,
    tasks: Sequence[TaskRecord],
    parameters: Parameters,
    probes: Sequence[ProbeRecord],
    scores: Sequence[Mapping[str, ProbeScore]],
    pixel_statistics: Mapping[str, ProbeScore],
    image_scores_digest: str,
    seconds: Seconds,
    flops: FlopsRecord | None = None,
    spread: Sequence[Mapping[str, SpreadRecord]] | None = None,
    skipped: Mapping[str, tuple[str, ...]] | None = None,
) -> RunRecord:
    """Return a checked record with its id and continual metrics filled in.

    Args:
        identity: What the run is.
        provenance: Where and with what it was made.
        tasks: Training, in the order of the stream.
        parameters: Counts.
        probes: In the order of the tables.
        scores: By probe; row 0 of the untrained encoder, then one row after each task.
        pixel_statistics: By probe.
        image_scores_digest: SHA-256 of the file with the score of every image.
        seconds: Totals.
        flops: Of the objective.
        spread: By probe, in the rows of ``scores``.
        skipped: Images that were left out, by the keys of ``identity.data``.

    Returns:
        The record.

    Raises:
        ArtefactError: If the parts contradict each other.
    """
    try:
        return RunRecord(
            format=FORMAT,
            id=identity.run_id(),
            identity=identity,
            provenance=provenance,
            tasks=tuple(tasks),
            parameters=parameters,
            probes=tuple(probes),
            scores=tuple(dict(row) for row in scores),
            pixel_statistics=dict(pixel_statistics),
            continual=ContinualRecord(**continual_of(tasks, probes, scores)),
            image_scores_digest=image_scores_digest,
            seconds=seconds,
            flops=flops,
            spread=None if spread is None else tuple(dict(row) for row in spread),
            skipped=dict(skipped or {}),
        )
    except ValidationError as error:
        raise ArtefactError(f"The run's results contradict each other: {_first(error)}.") from error
    except (KeyError, IndexError, ValueError) as error:
        raise ArtefactError(f"The run's results do not make a record: {error!r}.") from error


def write_record(record: RunRecord, path: Path, *, force: bool = False) -> None:
    """Write a record whole or not at all; writing the same record again does nothing.

    Args:
        record: The record.
        path: Where to; its folder is made if missing.
        force: Replace a different file.

    Raises:
        ArtefactError: If a different file is there, or the file cannot be written.
    """
    text = json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
    if path.exists() and not force:
        if path.is_file() and path.read_bytes() == text.encode():
            return
        raise ArtefactError(
            f"{path} already holds another record; records are never changed, so remove it or "
            "write with force to replace it."
        )
    write_atomic(path, text)


def read_record(path: Path) -> RunRecord:
    """Return the record of a file, checked against itself.

    Raises:
        ArtefactError: If the file is missing, damaged, of an unknown format or edited by hand;
            the sentence names the file and the field.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw = json.loads(text)
    except OSError as error:
        raise ArtefactError(
            f"{path} cannot be read ({error.strerror or error}); check the path."
        ) from error
    except ValueError as error:  # not UTF-8, or not JSON
        raise ArtefactError(f"{path} is damaged ({error}); {_MEND}.") from error
    if not isinstance(raw, dict) or "format" not in raw:
        raise ArtefactError(f"{path} is no run record: it has no field 'format'; move it away.")
    if raw["format"] != FORMAT:
        raise ArtefactError(
            f"{path}: field 'format' is {raw['format']!r} and this version reads {FORMAT}; read it "
            "with the version of rscl-bench that wrote it."
        )
    try:
        return RunRecord.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ArtefactError(f"{path}: {_first(error)}; {_MEND}.") from error


_MEND = "restore the file from where it was published, or run again"


def _first(error: ValidationError) -> str:
    """Return the first problem as ``field 'scores.1.ucmerced.test.micro': ...``."""
    first = error.errors()[0]
    message = first["msg"].removeprefix("Value error, ").rstrip(".")
    if not first["loc"]:  # from `consistency`, which names the field itself
        return message
    place = ".".join(str(part) for part in first["loc"])
    got = "" if first["type"] in ("missing", "extra_forbidden") else f", got {first['input']!r:.60}"
    return f"field '{place}': {message[0].lower()}{message[1:]}{got}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
