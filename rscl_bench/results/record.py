"""Makes, reads and writes run records; every record that is made or read is checked."""

import json
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from itertools import chain
from pathlib import Path

from pydantic import ValidationError

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError, shown
from rscl_bench.results.consistency import problems
from rscl_bench.results.continual import continual_of
from rscl_bench.results.plausibility import implausible
from rscl_bench.results.reading import read_json
from rscl_bench.results.schema import (
    FORMAT,
    FORMATS,
    FlopsRecord,
    Identity,
    InitRecord,
    Parameters,
    ParentRecord,
    ProbeRecord,
    ProbeScore,
    Provenance,
    RunRecord,
    Seconds,
    SpreadRecord,
    TaskRecord,
)
from rscl_bench.spec import first_problem

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "lightly",
    "avalanche-lib",
    "torchgeo",
    "numpy",
    "scipy",
    "scikit-learn",
    "kornia",
    "rasterio",
    "Pillow",
)


def package_versions() -> dict[str, str | None]:
    """Return the versions of the packages that can change a number.

    The version of a package that is not installed is None. ``GDAL`` is the library within rasterio,
    which decodes TIFF files.
    """
    return {**{name: _version(name) for name in _PACKAGES}, "GDAL": _gdal_version()}


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
    encoder_digest: str | None = None,
    pixel_digests: Mapping[str, str],
    init: InitRecord | None = None,
    parent: ParentRecord | None = None,
    unprobed: Mapping[str, tuple[int, ...]] | None = None,
    state_digest: str | None = None,
    task_encoders: Mapping[str, str] | None = None,
) -> RunRecord:
    """Make a record: compute its id and its continual metrics, and check its fields.

    Args:
        identity: All that distinguishes this run from other runs.
        provenance: Time, machine and versions of packages.
        tasks: Training on each task, in the order of the stream.
        parameters: Number of parameters of the encoder, and of trained parameters.
        probes: Probes in the order of the tables.
        scores: Rows of scores by probe: row 0 is for the untrained encoder, row t for the encoder
            after task t.
        pixel_statistics: Scores by probe, with pixel statistics as features.
        image_scores_digest: SHA-256 of the file with the score of every image.
        seconds: Seconds of each part of the run.
        flops: Operations of a step per image; None if not counted.
        spread: Rows of collapse metrics by probe, as many rows as ``scores``; None if not measured.
        skipped: Paths in the archive of the images that were left out, by key of
            ``identity.data``.
        encoder_digest: SHA-256 of the encoder's file; None if no encoder was stored.
        pixel_digests: Digests of the packed pixels, by key of ``identity.data``.
        init: The file of initial weights; None if the seed drew them.
        parent: The run that this run continues; None without one.
        unprobed: Numbers of the rows of scores in which a probe was not evaluated, by probe.
        state_digest: SHA-256 of the file of the last state; None if it was not kept.
        task_encoders: SHA-256 of the encoders after single tasks that were kept, by task.

    Raises:
        ArtefactError: If the fields contradict each other.
    """
    try:
        record = RunRecord(
            format=FORMAT,
            id=identity.run_id(),
            identity=identity,
            provenance=provenance,
            tasks=tuple(tasks),
            parameters=parameters,
            probes=tuple(probes),
            scores=tuple(dict(row) for row in scores),
            pixel_statistics=dict(pixel_statistics),
            continual=continual_of(tasks, probes, scores),
            image_scores_digest=image_scores_digest,
            seconds=seconds,
            flops=flops,
            spread=None if spread is None else tuple(dict(row) for row in spread),
            skipped=dict(skipped or {}),
            encoder_digest=encoder_digest,
            pixel_digests=dict(pixel_digests),
            init=init,
            parent=parent,
            unprobed=dict(unprobed or {}),
            state_digest=state_digest,
            task_encoders=dict(task_encoders or {}),
        )
    except ValidationError as error:
        raise ArtefactError(
            f"The run's results contradict each other: {first_problem(error)}."
        ) from error
    except (KeyError, IndexError, ValueError) as error:
        raise ArtefactError(f"The run's results do not make a record: {error!r}.") from error
    problem = next(problems(record), None)
    if problem:
        raise ArtefactError(f"The run's results contradict each other: {problem}.")
    return record


def write_record(record: RunRecord, path: Path, *, force: bool = False) -> None:
    """Write a record, whole or not at all.

    If the file already holds an equal record, nothing is written.

    Args:
        record: The record.
        path: Path of the file. A missing folder is created.
        force: Whether to replace another record at this path.

    Raises:
        ArtefactError: If the path holds another record, or the file cannot be written.
    """
    text = json.dumps(record.model_dump(mode="json"), indent=2, allow_nan=False) + "\n"
    if path.exists() and not force:
        if path.is_file() and path.read_bytes() == text.encode():
            return
        raise ArtefactError(
            f"{path} already holds another record, and records are never changed; remove the file "
            "or write with force."
        )
    write_atomic(path, text)


def read_record(path: Path) -> RunRecord:
    """Read a record and check that its fields agree with each other.

    Raises:
        ArtefactError: If the file is missing, damaged, of an unknown format or edited by hand. The
            message names the file and the field.
    """
    text, raw = read_json(path, _MEND)
    if not isinstance(raw, dict) or "format" not in raw:
        raise ArtefactError(f"{path} is no run record: it has no field 'format'; move it away.")
    layout = raw["format"]
    if type(layout) is not int or layout not in FORMATS:
        known = " and ".join(map(str, FORMATS))
        raise ArtefactError(
            f"{path}: field 'format' is {layout!r:.60} and this version reads {known}; read it "
            "with the version of rscl-bench that wrote it."
        )
    try:
        record = RunRecord.model_validate_json(text, strict=True)
    except ValidationError as error:
        raise ArtefactError(f"{path}: {shown(first_problem(error))}; {_MEND}.") from error
    problem = next(chain(problems(record), implausible(record)), None)
    if problem:
        raise ArtefactError(f"{path}: {shown(problem)}; {_MEND}.")
    return record


_MEND = "restore the file from where it was published, or run again"


def _gdal_version() -> str | None:
    try:
        from rasterio import __gdal_version__
    except ImportError:
        return None
    return str(__gdal_version__)


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
