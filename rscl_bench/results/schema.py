"""The fields of a run record: what a run is, and what it measured."""

from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    Field,
    JsonValue,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    field_validator,
)

from rscl_bench.probes.metrics import MultilabelMAP
from rscl_bench.spec import Edition, Name, Positive, Spec, identity

FORMAT = 2
RANDOM_ENCODER = "random-encoder"
PIXEL_STATISTICS = "pixel-statistics"

# Part of folder names, so no separators; without '-' a folder's name can be read back.
PathPart = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+]*$")]
ProtocolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*$")]


def task_key(task: str) -> str:
    """Return the key of a task's digest in a record's ``identity.data``."""
    return f"tasks.{task}"


def probe_key(probe: str, role: str) -> str:
    """Return the key of a probe split's digest; the role is ``train``, ``val`` or ``test``."""
    return f"probes.{probe}.{role}"


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
        data: Digest of every packed split: keys of `task_key` and `probe_key`.
        code: Version of this package.
        plugins: Qualified class names of Avalanche plugins that were added to the method. Left out
            when empty, so that the ids of runs without plugins stay as they are.
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
    plugins: Annotated[tuple[str, ...], Field(exclude_if=lambda names: not names)] = ()

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
    """How far features of the test split are from collapse; see `collapse_metrics`."""

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


class OutsideMetrics(Spec):
    """One probe of no task's domain.

    Attributes:
        final: ``R[T]``.
        mean_over_tasks: ``mean_t R[t]``.
        gain_over_random: ``R[T] − b``, b the untrained encoder's score.
    """

    final: float | None
    mean_over_tasks: float | None
    gain_over_random: float | None


class ContinualMetrics(Spec):
    """Metrics of one kind of score; differences are in the scores' own unit.

    With several domain probes of one task, each is a column j of its own. None where the formula
    has no term or needs a score that is missing.

    Attributes:
        final_average: ``mean_j R[T][j]`` (Lopez-Paz & Ranzato 2017, ACC).
        average_incremental: ``mean_t mean_{j<=t} R[t][j]``, over the t with a domain probe seen
            (the running mean of ACC; Díaz-Rodríguez et al. 2018 weigh all pairs j <= t alike).
        backward_transfer: ``mean_{j<T} (R[T][j] − R[j][j])`` (Lopez-Paz & Ranzato 2017, BWT).
        forgetting: ``mean_{j<T} (max_{j<=l<=T−1} R[l][j] − R[T][j])`` (Chaudhry et al. 2018, whose
            maximum is over all l < T; before task j the encoder has nothing of it to forget).
        forward_transfer: ``mean_{j>=2} (R[j−1][j] − b_j)``, b_j the untrained encoder's score
            (Lopez-Paz & Ranzato 2017, FWT).
        outside: By name, the probes of no task's domain; the metrics above leave them out.
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
        encoder_digest: SHA-256 of the encoder's file; None in records of earlier versions.
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
    encoder_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
