"""Defines the fields of a run record."""

from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    field_validator,
)

from rscl_bench.probes.metrics import MultilabelMAP
from rscl_bench.results.text import LONGEST, Line, PlainJson, Reference, SettingKey, Version
from rscl_bench.spec import Edition, Spec, identity
from rscl_bench.spec import Name as AnyName

#: Layout of the records that this version writes.
FORMAT = 3
#: Layouts of records that this version reads.
FORMATS = (2, 3)
RANDOM_ENCODER = "random-encoder"
#: An encoder from a file, before training; digits of the file's digest follow.
INITIAL_ENCODER = "initial-encoder"
PIXEL_STATISTICS = "pixel-statistics"

#: A number that a float holds exactly, so that no arithmetic overflows.
_Count = Annotated[int, Field(ge=0, le=2**53)]
_PositiveCount = Annotated[int, Field(ge=1, le=2**53)]
_Difference = Annotated[int, Field(ge=-(2**53), le=2**53)]
_Parameters = Annotated[int, Field(ge=1, le=10**12)]
#: The values of a digest: hexadecimal digits of SHA-256, whole or cut.
_Digest = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", min_length=8, max_length=LONGEST)
]
_Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
#: The qualified name of a class, such as ``plugins.make.<locals>.Plugin``.
_ClassName = Annotated[Line, Field(pattern=r"^\w[\w.<>]*$")]
#: A mean of float32 losses cannot exceed the largest float32.
_Loss = Annotated[float, Field(ge=-3.4028235e38, le=3.4028235e38)]

# A version is part of folder names: it has no path separator, and no '-', so that the name of a
# folder splits into its parts.
PathPart = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+]*$", max_length=LONGEST)]
ProtocolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$", max_length=LONGEST)]
#: Name of a scenario, method, task or probe.
Name = Annotated[AnyName, Field(max_length=LONGEST)]


def _is_none(value: object) -> bool:
    """Return whether a field is left out, so that records without it stay as they are."""
    return value is None


def task_key(task: str) -> str:
    """Return the key in ``identity.data`` of the digest of a task's tiles."""
    return f"tasks.{task}"


def probe_key(probe: str, role: str) -> str:
    """Return the key in ``identity.data`` of the digest of a probe's split.

    Args:
        probe: Name of the probe.
        role: ``train``, ``val`` or ``test``.
    """
    return f"probes.{probe}.{role}"


class ScenarioName(Spec):
    """The scenario of a run.

    Attributes:
        name: Name of the scenario.
        version: Version of the scenario.
        digest: Hash of the scenario's tasks and probes, without the version.
    """

    name: Name
    version: PathPart
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]


class _Component(BaseModel):
    """The name of an objective or a strategy; its parameters are not looked at."""

    name: Reference


class _Recipe(BaseModel):
    """The parts of a resolved recipe that every record has."""

    name: Name
    objective: _Component
    strategies: tuple[_Component, ...] = ()


class ParentState(Spec):
    """The run that an extended run continues.

    Attributes:
        run: Id of that run.
        state: SHA-256 of its file of the last state; see `rscl_bench.engine.state_file`.
        tasks: Number of tasks that it had trained on.
    """

    run: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    state: _Sha256
    tasks: Annotated[int, Field(ge=1, le=2**53)]


class Identity(Spec):
    """All fields that distinguish a run from other runs; their hash is the id of the record.

    Attributes:
        scenario: Name, version, and digest of tasks and probes.
        edition: ``real`` for real archives, ``sketch`` for synthetic archives.
        protocol_name: Name of the protocol within the scenario.
        protocol: The resolved protocol.
        method: The resolved recipe, with a value for every parameter.
        overrides: ``--set`` assignments: value by key.
        seed: Seed of the run.
        precision: Precision of the training; ``auto`` is resolved.
        data: Digests by the keys of `task_key` and `probe_key`. In format 3 a digest is of the
            bytes of the source files and of how they are cut. In format 2 it is of the packed
            pixels.
        code: Version of this package.
        plugins: Qualified class names of Avalanche plugins that were added to the method. An empty
            list is not hashed, so the ids of runs without plugins stay the same in all versions.
        init: SHA-256 of the file of initial weights of the encoder. None, which is not hashed, for
            weights that the seed draws.
        parent: The run that this run continues. None, which is not hashed, for a run that began
            with its first task.
    """

    scenario: ScenarioName
    edition: Edition
    protocol_name: ProtocolName
    protocol: dict[Line, PlainJson]
    method: dict[Line, PlainJson]
    overrides: dict[SettingKey, PlainJson]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    precision: Literal["fp32", "bf16"]
    data: dict[Line, _Digest]
    code: Version
    plugins: Annotated[tuple[_ClassName, ...], Field(exclude_if=lambda names: not names)] = ()
    init: Annotated[_Sha256 | None, Field(exclude_if=_is_none)] = None
    parent: Annotated[ParentState | None, Field(exclude_if=_is_none)] = None

    @field_validator("method")
    @classmethod
    def _names_its_components(cls, method: dict[str, Any]) -> dict[str, Any]:
        _Recipe.model_validate(method)
        return method

    @property
    def objective(self) -> str:
        """Name of the objective."""
        return _Recipe.model_validate(self.method).objective.name

    @property
    def strategies(self) -> list[str]:
        """Names of the strategies, in the order in which they act."""
        return [strategy.name for strategy in _Recipe.model_validate(self.method).strategies]

    def run_id(self) -> str:
        """Return the id of the run: 16 hexadecimal digits.

        Raises:
            ValueError: If a number is not finite.
        """
        return identity(self.model_dump(mode="json"))

    def setting(self, *path: str) -> int:
        """Return a positive integer of the protocol, such as ``setting("training", "batch_size")``.

        Raises:
            ValueError: If the protocol has no positive integer under these keys.
        """
        value: Any = self.protocol
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if type(value) is not int or not 1 <= value <= 2**53:
            raise ValueError(f"field 'identity.protocol.{'.'.join(path)}' is no positive integer")
        return value


class Resumption(Spec):
    """The point at which a run resumed after an interruption.

    Attributes:
        task: Index of the task, counted from 0.
        step: Number of steps of this task that were done before.
        changed: Differences to the interrupted process that may change last bits; one sentence per
            difference.
    """

    task: _Count
    step: _Count
    changed: tuple[Annotated[str, Field(max_length=1000)], ...]


class Provenance(Spec):
    """Time, machine and software of a run; no part of the run's identity.

    Attributes:
        rscl_bench: Version of this package.
        started: UTC time of the start.
        device_type: ``cpu``, ``cuda``, ...
        device: Full name of the device. Times of two devices are never compared.
        threads: CPU threads of the tensor library.
        python: Version of Python.
        platform: Operating system and architecture.
        versions: Versions of the packages in `package_versions`; None if not installed.
        resumed: Points at which the run resumed after interruptions.
        matrix_flops: Rate of matrix products in the run's precision, in operations per second,
            measured on the device when the run began; None if not measured.
        processor: Model name of the processor; None in records of earlier versions.
        cpu_capability: Instruction set that torch's CPU kernels use, such as ``AVX512``; None in
            records of earlier versions.
    """

    rscl_bench: Version
    started: AwareDatetime
    device_type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$", max_length=32)]
    device: Annotated[Line, Field(min_length=1)]
    threads: _PositiveCount
    python: Version
    platform: Line
    versions: dict[Line, Line | None]
    resumed: tuple[Resumption, ...] = ()
    matrix_flops: PositiveFloat | None = None
    processor: Line | None = None
    cpu_capability: Line | None = None

    @field_validator("started")
    @classmethod
    def _is_utc(cls, started: AwareDatetime) -> AwareDatetime:
        if started.utcoffset():
            raise ValueError("must be a UTC time")
        return started


class TaskRecord(Spec):
    """Training on one task.

    Attributes:
        name: Name of the task.
        tiles: Training tiles of the task.
        epochs: Number of epochs.
        steps: Number of optimiser steps in all epochs; 0 if the strategy trains nothing in this
            task.
        train_seconds: Time of the steps and of the strategies' work before and after the steps,
            with the device synchronised. Packing, probing and checkpoints are not part of this
            time.
        images_per_second: ``steps × batch size / train_seconds``, with the protocol's batch size;
            None without a step.
        final_loss: Mean loss of the last epoch; None without a step.
        peak_memory_bytes: On a GPU, most memory allocated in this task. On a CPU, most resident
            memory of the process since its start. None if not known.
        waited_seconds: Part of ``train_seconds`` in which training waited for the next tiles; None
            in records of earlier versions.
        flop_utilisation: Operations per second of training, as ``flops.of_task`` gives them for
            an image, divided by ``provenance.matrix_flops``; None without a step or without this
            rate.
    """

    name: Name
    tiles: _PositiveCount
    epochs: _PositiveCount
    steps: _Count
    train_seconds: NonNegativeFloat
    images_per_second: PositiveFloat | None
    final_loss: _Loss | None
    peak_memory_bytes: _Count | None
    waited_seconds: NonNegativeFloat | None = None
    flop_utilisation: PositiveFloat | None = None


class Parameters(Spec):
    """Number of parameters of the encoder, and number of trained parameters."""

    encoder: _Parameters
    trainable: _Parameters


class FlopsRecord(Spec):
    """Operations of one step, for each image of the protocol's batch, counted in one step.

    Attributes:
        with_gradient: The objective's forward passes with gradient, and its backward pass.
        without_gradient: The objective's forward passes without gradient, such as a teacher's.
        strategies_with_gradient: What the strategies add to ``with_gradient`` in the second task,
            such as replayed images; negative if they take images away. None in records of earlier
            versions, which did not count this.
        strategies_without_gradient: What the strategies add to ``without_gradient``.
    """

    with_gradient: _PositiveCount
    without_gradient: _Count
    strategies_with_gradient: _Difference | None = None
    strategies_without_gradient: _Difference | None = None

    def total_with_gradient(self) -> int:
        """Return the operations with gradient, with those of strategies as far as counted."""
        return self.with_gradient + (self.strategies_with_gradient or 0)

    def total_without_gradient(self) -> int:
        """Return the operations without gradient, with those of strategies as far as counted."""
        return self.without_gradient + (self.strategies_without_gradient or 0)

    def of_task(self, task: int) -> int:
        """Return all operations of a step of a task: strategies add theirs after the first task.

        Args:
            task: Index of the task, from 0.
        """
        if task == 0:
            return self.with_gradient + self.without_gradient
        return self.total_with_gradient() + self.total_without_gradient()


class SpreadRecord(Spec):
    """The two numbers of `collapse_metrics`, computed from the features of the test split."""

    std: NonNegativeFloat
    effective_rank: Annotated[float, Field(ge=1, allow_inf_nan=False)]


class ProbeRecord(Spec):
    """One probe.

    Attributes:
        name: Name of the probe in the scenario.
        probe: Name of the registered probe.
        task: Task whose domain the probe belongs to; None for an outside probe.
        test_tiles: Number of tiles of the test split.
        labels: Number of labels.
    """

    name: Name
    probe: Reference
    task: Name | None
    test_tiles: _PositiveCount
    labels: _PositiveCount


class ProbeScore(Spec):
    """Scores on the test split and on the validation split; None without a validation split."""

    test: MultilabelMAP
    val: MultilabelMAP | None


class OutsideMetrics(Spec):
    """Metrics of one outside probe, that is, a probe of no task's domain.

    ``R[t]`` is the score after task t of T, and b the score with the untrained encoder.

    Attributes:
        final: ``R[T]``.
        mean_over_tasks: ``mean_t R[t]``.
        gain_over_random: ``R[T] − b``.
    """

    final: float | None
    mean_over_tasks: float | None
    gain_over_random: float | None


class ContinualMetrics(Spec):
    """Continual metrics of one kind of score, in the unit of the scores.

    ``R[t][j]`` is the score of probe j after task t of T. Two probes of one task's domain are two
    columns j. A metric is None if its formula has no term, or if a needed score is missing.

    Attributes:
        final_average: ``mean_j R[T][j]`` (Lopez-Paz & Ranzato 2017, ACC).
        average_incremental: ``mean_t mean_{j<=t} R[t][j]``, over the tasks t with a probe
            j <= t. This is the running mean of ACC; Díaz-Rodríguez et al. 2018 give all pairs
            j <= t the same weight.
        backward_transfer: ``mean_{j<T} (R[T][j] − R[j][j])`` (Lopez-Paz & Ranzato 2017, BWT).
        forgetting: ``mean_{j<T} (max_{j<=l<=T−1} R[l][j] − R[T][j])`` (after Chaudhry et al.
            2018, whose maximum is over all l < T). Before task j the encoder has not seen the
            domain of probe j and cannot forget it.
        forward_transfer: ``mean_{j>=2} (R[j−1][j] − b_j)``, where b_j is the score with the
            untrained encoder (Lopez-Paz & Ranzato 2017, FWT).
        outside: Metrics of outside probes, by probe. The metrics above leave outside probes out.
    """

    final_average: float | None
    average_incremental: float | None
    backward_transfer: float | None
    forgetting: float | None
    forward_transfer: float | None
    outside: dict[str, OutsideMetrics]


class ContinualRecord(Spec):
    """Continual metrics of the test split's micro and macro scores, as fractions."""

    micro: ContinualMetrics
    macro: ContinualMetrics


class Seconds(Spec):
    """Seconds of the parts of a run; ``packing`` is None if the tiles were packed before."""

    packing: NonNegativeFloat | None
    training: NonNegativeFloat
    probing: NonNegativeFloat
    total: NonNegativeFloat


class InitRecord(Spec):
    """The file of initial weights of the encoder, whose digest is ``identity.init``.

    Attributes:
        file: Name of the file, without its folder.
        adapted: What was changed to fit the encoder, one clause each.
        left_out: Names of the file's tensors that are no part of an encoder, such as a classifier.
    """

    file: Line
    adapted: tuple[Line, ...] = ()
    left_out: tuple[Line, ...] = ()


class ParentRecord(Spec):
    """What is known of the run that an extended run continues, besides ``identity.parent``.

    Attributes:
        record: SHA-256 of the file of that run's record.
        seconds: ``seconds.total`` of that run, which this run's times include.
        changed: Differences of machine and software that may change last bits; one sentence each.
    """

    record: _Sha256
    seconds: NonNegativeFloat
    changed: tuple[Annotated[str, Field(max_length=1000)], ...] = ()


class RunRecord(Spec):
    """The record of a run. `make_record` makes a record and checks its fields.

    Attributes:
        format: Version of this layout.
        id: Hash of ``identity``: 16 hexadecimal digits.
        identity: Fields that distinguish the run from other runs.
        provenance: Time, machine and software.
        tasks: Training on each task, in the order of the stream.
        parameters: Number of parameters.
        probes: Probes in the order of the tables.
        scores: Rows of scores by probe: row 0 is for the untrained encoder, row t for the encoder
            after task t.
        pixel_statistics: Scores by probe, with the mean and deviation of each band as features.
        continual: Continual metrics of ``scores``; stored so that other programs need not compute
            them.
        image_scores_digest: SHA-256 of the file with the score of every image; see
            `rscl_bench.results.image_scores`.
        seconds: Seconds of each part of the run.
        flops: Operations of a step per image; None if not counted.
        spread: Rows of collapse metrics by probe, as many rows as ``scores``; None if not measured.
        skipped: Unusable images that were left out: their paths in the archive, by key of
            ``identity.data``.
        encoder_digest: SHA-256 of the encoder's file; None in records of earlier versions.
        pixel_digests: Digests of the packed pixels, by the keys of ``identity.data``. They differ
            between decoders of one source file. Empty in format 2, whose identity holds them.
        init: The file of initial weights; None if the seed drew them.
        parent: The run that this run continues; None for a run that began with its first task.
            Tasks, scores, spread and times of an extended run include those of its parent.
        unprobed: Numbers of the rows of ``scores`` in which a probe was not evaluated, by probe:
            the probe came with a later task, or its archive was gone. Its scores in these rows are
            None, and ``spread`` has none.
        state_digest: SHA-256 of the file of the last state, from which the run can be extended;
            None if it was not kept.
        task_encoders: SHA-256 of the files of the encoders after single tasks, by task; empty if
            they were not kept.
    """

    format: Literal[2, 3]
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
    encoder_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    pixel_digests: dict[Line, _Digest] = Field(default={})
    init: Annotated[InitRecord | None, Field(exclude_if=_is_none)] = None
    parent: Annotated[ParentRecord | None, Field(exclude_if=_is_none)] = None
    unprobed: dict[Name, tuple[_Count, ...]] = Field(default={}, exclude_if=lambda rows: not rows)
    state_digest: Annotated[_Sha256 | None, Field(exclude_if=_is_none)] = None
    task_encoders: dict[Name, _Sha256] = Field(default={}, exclude_if=lambda kept: not kept)

    def is_probed(self, probe: str, row: int) -> bool:
        """Return whether a probe was evaluated in a row of ``scores``."""
        return row not in self.unprobed.get(probe, ())
