"""Reads and writes the score of every probed image.

The scores are in the file ``record.safetensors`` beside the record. Tensors are named after the
fields of the record: the field ``scores.0.ucmerced.test`` is computed from the tensors
``scores.0.ucmerced.test`` and ``labels.ucmerced.test``. The file has no metadata, so equal runs
write equal bytes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError
from rscl_bench.probes.metrics import multilabel_map
from rscl_bench.results.schema import ProbeScore, RunRecord

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
    """

    labels: Labels
    scores: Sequence[Scores]
    pixel_statistics: Scores

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        rows = {f"scores.{t}": row for t, row in enumerate(self.scores)}
        fields: dict[str, Labels | Scores] = {
            "labels": self.labels,
            "pixel_statistics": self.pixel_statistics,
            **rows,
        }
        return save(
            {
                f"{field}.{probe}.{role}": array
                for field, probes in fields.items()
                for probe, roles in probes.items()
                for role, array in roles.items()
            }
        )

    def digest(self) -> str:
        """Return the SHA-256 of the file's content, as 64 hexadecimal digits."""
        return sha256(self.to_bytes()).hexdigest()


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
        ArtefactError: If the file of image scores cannot be read, or its digest is not the one in
            the record.
    """
    file = image_scores_path(path)
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ArtefactError(
            f"{file} cannot be read ({error.strerror or error}); mend its permissions or move it "
            "away."
        ) from error
    if sha256(content).hexdigest() != record.image_scores_digest:
        raise ArtefactError(
            f"{file} does not belong to {path}: its SHA-256 is not the record's "
            "'image_scores_digest'; restore the run's own file or move this one away."
        )
    fields: dict[str, dict[str, dict[str, NDArray[Any]]]] = {}
    for name, array in load(content).items():
        field, probe, role = name.rsplit(".", 2)
        fields.setdefault(field, {}).setdefault(probe, {})[role] = array
    return ImageScores(
        labels=fields["labels"],
        scores=[fields[f"scores.{t}"] for t in range(len(record.tasks) + 1)],
        pixel_statistics=fields["pixel_statistics"],
    )
