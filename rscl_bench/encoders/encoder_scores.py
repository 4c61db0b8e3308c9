"""The scores of an encoder on the probes of a scenario, and their file.

The file is no run record: it has none of the fields by which a record is known.
"""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue

from rscl_bench.atomic import write_atomic
from rscl_bench.models.encoder_file import EncoderDescription
from rscl_bench.results.schema import ProbeRecord, ProbeScore, ScenarioName, SpreadRecord
from rscl_bench.spec import Edition, Spec


class EncoderSource(Spec):
    """The probed encoder.

    Attributes:
        file: Name of the file, without its folder.
        digest: SHA-256 of the file.
        timm: Name of the model in timm; None for a backbone of this package.
        backbone: Registered backbone and its parameters; None for a model of timm.
        adapted: How weights of another project were fitted.
        left_out: Tensors of the file that are no part of the encoder.
        description: The description in the encoder's file; None for another project's weights.
    """

    file: str
    digest: str
    timm: str | None = None
    backbone: dict[str, JsonValue] | None = None
    adapted: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    description: EncoderDescription | None = None


class RoleImages(Spec):
    """The images of one split.

    Attributes:
        labels: ``[M, L]``, 0 or 1.
        scores: ``[M, L]``, as the probe returned them.
    """

    labels: tuple[tuple[int, ...], ...]
    scores: tuple[tuple[float, ...], ...]


class ProbeResult(ProbeRecord):
    """One probe; the fields of a record's probe, and the results.

    Attributes:
        score: Scores on the test split, and on the validation split where there is one.
        spread: Collapse metrics of the features of the test split.
        images: Labels and scores of all images by role, ``test`` and ``val``.
    """

    score: ProbeScore
    spread: SpreadRecord
    images: dict[str, RoleImages]


class EncoderScores(Spec):
    """The scores of an encoder on the probes of a scenario.

    Attributes:
        kind: Names this kind of file.
        layout: Version of this layout.
        rscl_bench: Version of this package.
        encoder: The encoder.
        scenario: Name, version and digest of the scenario.
        edition: Whether the archives are ``real`` or ``sketch`` ones.
        protocol_name: Name of the protocol.
        protocol: The protocol, with the image size and band mode of the encoder.
        precision: Precision of the forward passes.
        device: Full name of the device.
        data: Digests of the source files of the probes' splits, by the keys of a record's
            ``identity.data``.
        probes: The probes in the order of the scenario.
        recorded: The scores of the encoder in its run's record, if it lies beside the file and has
            equal data and settings; None otherwise.
    """

    kind: Literal["probed encoder"] = "probed encoder"
    layout: Literal[1] = 1
    rscl_bench: str
    encoder: EncoderSource
    scenario: ScenarioName
    edition: Edition
    protocol_name: str
    protocol: dict[str, Any]
    precision: Literal["fp32", "bf16"]
    device: str
    data: dict[str, str]
    probes: Annotated[tuple[ProbeResult, ...], Field(min_length=1)]
    recorded: dict[str, ProbeScore] | None = None

    @property
    def scores(self) -> dict[str, ProbeScore]:
        """The scores by probe, as in a row of a record."""
        return {probe.name: probe.score for probe in self.probes}

    @property
    def equals_record(self) -> bool | None:
        """Whether all scores are those of the run's record; None without such a record."""
        if self.recorded is None:
            return None
        return self.recorded == self.scores

    def default_name(self) -> str:
        """Return the name of the file of these scores."""
        scenario = self.scenario.name if self.edition == "real" else f"{self.scenario.name}-sketch"
        return f"probe-{scenario}-{self.protocol_name}-{self.encoder.digest[:8]}.json"


def write_probed(probed: EncoderScores, path: Path) -> None:
    """Write the scores of an encoder as JSON, whole or not at all.

    Raises:
        ArtefactError: If the file cannot be written.
    """
    write_atomic(path, json.dumps(probed.model_dump(mode="json"), allow_nan=False) + "\n")
