"""Writes the samples of torch datasets as a folder of images, which the dataset `folder` reads."""

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from rscl_bench.archives.folder.options import FolderOptions
from rscl_bench.archives.folder.samples import Sample, as_sample
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.errors import ArchiveError, ArtefactError, SpecError
from rscl_bench.progress import Progress, silent
from rscl_bench.scratch import scratch_folder
from rscl_bench.sensors import Sensor
from rscl_bench.spec import validated

LABELS = "labels.csv"


class MapDataset(Protocol):
    """What is used of a map-style ``torch.utils.data.Dataset``."""

    def __len__(self) -> int:
        """Return the number of samples."""

    def __getitem__(self, index: int, /) -> Any:
        """Return a sample."""


def write_samples(
    root: str,
    splits: Mapping[str, MapDataset],
    data_root: Path,
    sensor: str | Mapping[str, Any],
    classes: Sequence[str],
    progress: Progress = silent,
) -> dict[str, Any]:
    """Write samples below a data root, and return the options by which `folder` reads them.

    Every sample is read once. A folder that holds equal files already is left as it is.

    Args:
        root: Folder below the data root.
        splits: A dataset for each split.
        data_root: Folder of the archives.
        sensor: Name of a sensor, or its values as in ``options.sensor``.
        classes: Names of the classes; empty to leave labels out.
        progress: Called after each sample.

    Raises:
        SpecError: If a name or the sensor is not valid.
        ArchiveError: If a sample is not valid, or the folder holds other files.
        ArtefactError: If the folder cannot be written.
    """
    options = _options(root, list(splits), sensor, classes)
    described = adapter_class("folder", options).sensor
    target = data_root / root
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with scratch_folder(target.parent, "writing") as work:
            kind = _write_all(work, splits, described, classes, progress)
            _settle(work, target)
    except OSError as error:
        raise ArtefactError(
            f"The samples cannot be written into {target} ({error.strerror or error}); make room "
            "there, or choose another data_root."
        ) from error
    return {**options, **_truth(kind, classes)}


def _options(
    root: str, splits: list[str], sensor: str | Mapping[str, Any], classes: Sequence[str]
) -> dict[str, Any]:
    options = {
        "root": root,
        "pattern": "images/*/*.npy",
        "sensor": sensor if isinstance(sensor, str) else dict(sensor),
        "splits": {"by": "folder", "level": 2, "parts": {split: [split] for split in splits}},
    }
    labels = {"by": "folder", "classes": list(classes)} if classes else None
    validated(FolderOptions, {**options, "labels": labels}, "the dataset to write")
    return options


def _truth(kind: str, classes: Sequence[str]) -> dict[str, Any]:
    if kind == "labels":
        return {"table": LABELS, "labels": {"by": "columns", "columns": list(classes)}}
    if kind == "a mask":
        path = "masks/{2}/{stem}.npy"
        rule = {"by": "mask", "path": path, "classes": list(classes), "ignored": [255]}
        return {"labels": rule}
    return {}


def _write_all(
    work: Path,
    splits: Mapping[str, MapDataset],
    sensor: Sensor,
    classes: Sequence[str],
    progress: Progress,
) -> str:
    """Write the samples of all splits, and return what they have besides their images."""
    kinds: dict[str, str] = {}
    rows: list[list[Any]] = []
    for split, dataset in splits.items():
        for index, sample in _samples(split, dataset, sensor, classes):
            where = f"images/{split}/{index:06}.npy"
            kinds.setdefault(sample.kind, where)
            if len(kinds) > 1:
                first, other = kinds.items()
                raise ArchiveError(
                    f"{first[1]} has {first[0]} and {other[1]} has {other[0]}; give all samples "
                    "one kind."
                )
            _save(work / where, sample.image)
            if sample.mask is not None:
                _save(work / f"masks/{split}/{index:06}.npy", sample.mask)
            if sample.labels is not None:
                rows.append([where, *sample.labels.tolist()])
            progress(f"writing {split}", index + 1, len(dataset))
    if rows:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([["image file", *classes], *rows])
        (work / LABELS).write_text(text.getvalue(), encoding="utf-8")
    return next(iter(kinds))


def _samples(
    split: str, dataset: MapDataset, sensor: Sensor, classes: Sequence[str]
) -> Iterator[tuple[int, Sample]]:
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise SpecError(
            f"The dataset of split '{split}' has no length or no index; give a map-style dataset."
        )
    if len(dataset) == 0:
        raise SpecError(f"The dataset of split '{split}' is empty; leave it out.")
    for index in range(len(dataset)):
        where = f"Sample {index} of split '{split}'"
        yield index, as_sample(dataset[index], sensor, classes, where)


def _save(path: Path, array: np.ndarray[Any, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # Little-endian on every machine, so that equal samples have equal bytes.
    np.save(path, array.astype(array.dtype.newbyteorder("<"), copy=False), allow_pickle=False)


def _settle(work: Path, target: Path) -> None:
    if not target.exists():
        work.rename(target)
        return
    written, present = _files(work), _files(target)
    differing = sorted(
        name
        for name in written.keys() | present.keys()
        if name not in written
        or name not in present
        or written[name].read_bytes() != present[name].read_bytes()
    )
    if differing:
        more = f" and {len(differing) - 1} more files differ" if differing[1:] else " differs"
        raise ArchiveError(
            f"{target} holds other samples: {differing[0]}{more}; delete the folder, "
            "choose another name, or leave random transforms out."
        )


def _files(folder: Path) -> dict[str, Path]:
    return {
        path.relative_to(folder).as_posix(): path
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
