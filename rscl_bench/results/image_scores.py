"""Reads and writes the score of every probed image.

The scores are in the file ``record.safetensors`` beside the record. Tensors are named after the
fields of the record: the field ``scores.0.ucmerced.test`` is computed from the tensors
``scores.0.ucmerced.test`` and ``labels.ucmerced.test``. The header holds the id of the run under
the key ``run``, so the file of one run does not fit the record of another. Equal runs write equal
bytes.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError, shown
from rscl_bench.probes.metrics import multilabel_map
from rscl_bench.results.reading import read_regular
from rscl_bench.results.schema import ProbeScore, RunRecord

_RUN = "run"
# 10,000 test images, 1,000 labels and 100 tasks give 8 GB.
_LARGEST = 16 * 2**30
#: Labels by probe and role: ``[M, L]``, 0 or 1. The roles are ``test``, and ``val`` if the probe
#: has a validation split.
Labels = Mapping[str, Mapping[str, NDArray[np.uint8]]]
#: Scores by probe and role: ``[M, L]``, as returned by the probe.
Scores = Mapping[str, Mapping[str, NDArray[np.float64]]]


@dataclass(frozen=True)
class ImageScores:
    """Labels and scores of all probed images of a run.

    The scores of the run's record are computed from these.

    Attributes:
        labels: Labels of all probed images.
        scores: Scores with the untrained encoder, then scores after each task.
        pixel_statistics: Scores with the mean and deviation of each band as features, instead of
            an encoder's features.
        run: Id of the run; None in files of versions before 0.4.0.
    """

    labels: Labels
    scores: Sequence[Scores]
    pixel_statistics: Scores
    run: str | None = None

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return save(named_tensors(self), None if self.run is None else {_RUN: self.run})

    def digest(self) -> str:
        """Return the SHA-256 of the file's content, as 64 hexadecimal digits."""
        return sha256(self.to_bytes()).hexdigest()


def named_tensors(images: ImageScores) -> dict[str, NDArray[Any]]:
    """Return the tensors of the file by name, such as ``scores.0.ucmerced.test``."""
    rows = {f"scores.{t}": row for t, row in enumerate(images.scores)}
    fields: dict[str, Labels | Scores] = {
        "labels": images.labels,
        "pixel_statistics": images.pixel_statistics,
        **rows,
    }
    return {
        f"{field}.{probe}.{role}": array
        for field, probes in fields.items()
        for probe, roles in probes.items()
        for role, array in roles.items()
    }


def scores_of_tensors(
    tensors: Mapping[str, NDArray[Any]], record: RunRecord, run: str | None
) -> ImageScores:
    """Return the image scores whose `named_tensors` are given.

    Args:
        tensors: Tensors that `check_tensors` has found to fit the record.
        record: Record of the run.
        run: Id of the run, as the file names it.
    """
    fields: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}
    for name, array in tensors.items():
        field, probe, role = name.rsplit(".", 2)
        fields.setdefault(field, {}).setdefault(probe, {})[role] = array
    return ImageScores(
        labels=fields["labels"],
        scores=[fields.get(f"scores.{t}", {}) for t in range(len(record.tasks) + 1)],
        pixel_statistics=fields.get("pixel_statistics", {}),
        run=run,
    )


def probe_scores(labels: Labels, scores: Scores) -> dict[str, ProbeScore]:
    """Return the mean average precisions by probe, computed from one row of image scores."""
    maps = {
        probe: {role: multilabel_map(labels[probe][role], array) for role, array in roles.items()}
        for probe, roles in scores.items()
    }
    return {probe: ProbeScore(test=m["test"], val=m.get("val")) for probe, m in maps.items()}


def image_scores_path(record: Path) -> Path:
    """Return the path of the image scores of a record file."""
    return record.with_suffix(".safetensors")


def write_image_scores(scores: ImageScores, record: Path) -> None:
    """Write the image scores of a record file, whole or not at all.

    Raises:
        ArtefactError: If the file cannot be written.
    """
    write_atomic(image_scores_path(record), scores.to_bytes())


def read_image_scores(path: Path, record: RunRecord) -> ImageScores | None:
    """Return the image scores beside a record file; None if there is no such file.

    Args:
        path: File of the record.
        record: Content of that file.

    Raises:
        ArtefactError: If the file of image scores cannot be read, its digest is not the one in the
            record, it is of another run, or a tensor does not fit the record.
    """
    file = image_scores_path(path)
    if not os.path.lexists(file):
        return None
    content = read_regular(file, _LARGEST)
    if sha256(content).hexdigest() != record.image_scores_digest:
        raise ArtefactError(
            f"{file} does not belong to {path}: its SHA-256 is not the record's "
            "'image_scores_digest'; restore the run's own file or move this one away."
        )
    try:
        tensors, metadata = parsed_tensors(content)
        run = metadata.get(_RUN)
        _check_run(run, record)
        check_tensors(tensors, record)
    except ValueError as error:
        raise ArtefactError(
            f"{file} does not fit {path}: {shown(str(error))}; restore the run's own file or run "
            "again."
        ) from error
    return scores_of_tensors(tensors, record, run)


def parsed_tensors(content: bytes) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return the tensors of a safetensors file's content, and the texts in its header.

    Raises:
        ValueError: If the content is not that of a safetensors file, or a type is unknown to NumPy.
    """
    try:
        tensors = load(content)
    except (SafetensorError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"it is damaged or no safetensors file ({error!r})") from error
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return tensors, header.get("__metadata__", {})


def _check_run(run: str | None, record: RunRecord) -> None:
    """Refuse the image scores of another run.

    Raises:
        ValueError: If the run's id is not that of the record. Files of format 2 may have none.
    """
    if run != record.id and not (run is None and record.format == 2):
        raise ValueError(f"its header names the run {run!r:.60}, and the field 'id' is {record.id}")


def check_tensors(tensors: Mapping[str, NDArray[Any]], record: RunRecord) -> None:
    """Refuse tensors that do not have the names, types, shapes and values of a record's.

    Raises:
        ValueError: If a tensor is missing, is one too many or does not fit. The message names it.
    """
    expected = dict(_expected(record))
    for name in sorted(expected.keys() ^ tensors.keys()):
        what = "lacks the tensor" if name in expected else "has no field for the tensor"
        raise ValueError(f"{'it' if name in expected else 'the record'} {what} '{name:.80}'")
    for name, (dtype, shape) in expected.items():
        array = tensors[name]
        fits = len(array.shape) == 2 and all(
            n == size or (size is None and n > 0)
            for n, size in zip(array.shape, shape, strict=True)
        )
        if array.dtype != dtype or not fits:
            wanted = "×".join("M" if size is None else str(size) for size in shape)
            raise ValueError(
                f"the tensor '{name}' is {array.dtype} of shape {list(array.shape)}, and {dtype} "
                f"of shape {wanted} is needed"
            )
        if dtype == "float64" and not np.isfinite(array).all():
            raise ValueError(f"the tensor '{name}' holds a score that is not finite")
        if dtype == "uint8" and (array > 1).any():
            raise ValueError(f"the tensor '{name}' holds a label that is neither 0 nor 1")
    for name, array in tensors.items():
        of = "labels." + ".".join(name.rsplit(".", 2)[1:])
        if len(array) != len(tensors[of]):
            raise ValueError(
                f"the tensor '{name}' has {len(array)} rows and '{of}' {len(tensors[of])}"
            )


def _expected(record: RunRecord) -> Iterator[tuple[str, tuple[str, tuple[int | None, int]]]]:
    """Yield name, type and shape of the tensors; the size of a validation split is None."""
    for probe in record.probes:
        rows = {
            f"scores.{t}": row
            for t, row in enumerate(record.scores)
            if record.is_probed(probe.name, t)
        }
        if probe.name in record.pixel_statistics:
            rows["pixel_statistics"] = record.pixel_statistics
        shapes: dict[str, tuple[int | None, int]] = {"test": (probe.test_tiles, probe.labels)}
        if record.scores[0][probe.name].val is not None:  # None in all rows, or in none
            shapes["val"] = (None, probe.labels)
        for role, shape in shapes.items():
            yield f"labels.{probe.name}.{role}", ("uint8", shape)
            for field in rows:
                yield f"{field}.{probe.name}.{role}", ("float64", shape)
