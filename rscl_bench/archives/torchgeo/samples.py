"""Turns a sample of TorchGeo, a dictionary of tensors, into a scene in the sensor's own numbers.

TorchGeo returns images as ``float32`` tensors. Tiles are stored as whole numbers of 8 or 16 bits.
A value that is none is refused, and never rounded, unless the options declare a conversion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.adapter import UNDEFINED, Objects, Scene
from rscl_bench.archives.files import filled
from rscl_bench.archives.torchgeo.options import Conversion, TorchGeoOptions
from rscl_bench.errors import ArchiveError
from rscl_bench.sensors import Sensor

_BOXES = ("bbox_xyxy", "boxes", "bbox")
_LABELS = ("label", "labels", "class")


@dataclass(frozen=True)
class SampleReader:
    """Reads the samples of one dataset.

    Attributes:
        title: Name of the dataset, for messages.
        sensor: The bands of the images.
        values: Name of the class of each label value, from 0 on; empty if none is declared.
        ignored: Label values that are no class.
        options: The options of the dataset.
        folders: Name of the folder of each label, for classes that number the folders they find.
    """

    title: str
    sensor: Sensor
    values: tuple[str, ...]
    ignored: frozenset[int]
    options: TorchGeoOptions
    folders: Mapping[int, str] = field(default_factory=dict)

    def scene(self, sample: Mapping[str, Any], item: str, with_labels: bool) -> Scene:
        """Return the scene of a sample.

        Args:
            sample: The sample.
            item: The item's files, for messages.
            with_labels: Whether the scene has labels or a mask.

        Raises:
            ArchiveError: If the sample has no such image or labels, or holds a value that tiles
                cannot hold.
        """
        image = self._image(sample, item)
        if not with_labels:
            return Scene(image)
        key, label = self._target(sample, item)
        if key in _BOXES:
            return Scene(image, objects=self._objects(sample, label, key, item))
        if label.ndim >= 2:
            return Scene(image, mask=self._mask(label, image.shape[:2], key, item))
        return Scene(image, labels=self._labels(label, key, item))

    def _image(self, sample: Mapping[str, Any], item: str) -> NDArray[Any]:
        """Return the image ``[H, W, C]``; a masked array if values are missing."""
        key = self.options.image_key or "image"
        if key not in sample:
            images = [name for name, value in sample.items() if np.ndim(value) >= 3]
            raise ArchiveError(
                f"A sample of {self.title} has no '{key}', but {_listed(images)}; set "
                f'options.image_key = "{images[0] if images else key}".'
            )
        image = self._dated(np.asarray(sample[key]), item)
        if self.options.channels is not None:
            image = self._chosen(image, self.options.channels, item)
        if image.shape[0] != len(self.sensor.bands):
            names = ", ".join(band.name for band in self.sensor.bands)
            raise ArchiveError(
                f"{item} has {image.shape[0]} bands where {self.title} is declared with "
                f"{len(self.sensor.bands)} ({names}); declare them in options.sensor, or choose "
                "channels by options.channels."
            )
        pixels = np.moveaxis(image, 0, 2)
        missing = _missing(pixels, self.options.nodata)
        stored = _stored(pixels, missing, self.sensor, self.options.convert, item)
        if not missing.any():
            return stored
        return np.ma.MaskedArray(filled(stored, missing), mask=missing)

    def _dated(self, image: NDArray[Any], item: str) -> NDArray[Any]:
        """Return one date ``[C, H, W]`` of an image ``[T, C, H, W]`` or ``[T * C, H, W]``."""
        bands, date = len(self.sensor.bands), self.options.date
        if image.ndim == 2:
            image = image[None]
        if image.ndim == 3:
            dates = 1 if date is None or self.options.channels else image.shape[0] // bands
            if dates <= 1:
                return image
            image = image[: dates * bands].reshape(dates, bands, *image.shape[1:])
        if image.ndim != 4:
            raise ArchiveError(
                f"{item} has an image of shape {image.shape}; an image has bands, rows and columns."
            )
        if date is None and image.shape[0] == 1:  # a series of one date leaves no choice
            date = 1
        if date is None:
            raise ArchiveError(
                f"{item} has {image.shape[0]} dates; set options.date to one of 1 to "
                f"{image.shape[0]}."
            )
        if date > image.shape[0]:
            raise ArchiveError(
                f"{item} has {image.shape[0]} dates, and options.date is {date}; lower it."
            )
        dated: NDArray[Any] = image[date - 1]
        return dated

    def _chosen(self, image: NDArray[Any], channels: tuple[int, ...], item: str) -> NDArray[Any]:
        if max(channels) > image.shape[0]:
            raise ArchiveError(
                f"{item} has {image.shape[0]} channels, and options.channels names channel "
                f"{max(channels)}; channels count from 1."
            )
        return image[[channel - 1 for channel in channels]]

    def _target(self, sample: Mapping[str, Any], item: str) -> tuple[str, NDArray[Any]]:
        """Return the key and the value of what a probe predicts."""
        chosen = self.options.label_key
        boxes = [key for key in _BOXES if key in sample]
        labels = [key for key in _LABELS if key in sample]
        masks = [key for key in sample if key.startswith("mask")]
        found = boxes[:1] or [*labels[:1], *masks]
        if chosen is None and len(found) == 1:
            chosen = found[0]
        if chosen is None or chosen not in sample:
            others = [key for key in sample if key != (self.options.image_key or "image")]
            kinds = "several kinds of labels" if found else "no label"
            what = f"no '{chosen}'" if chosen else kinds
            raise ArchiveError(
                f"{item} has {what}; set options.label_key to one of {_listed(others)}."
            )
        if isinstance(sample[chosen], Mapping):  # the table of an image without objects
            return _BOXES[0], np.zeros((0, 4))
        return chosen, np.asarray(sample[chosen])

    def _objects(
        self, sample: Mapping[str, Any], boxes: NDArray[Any], key: str, item: str
    ) -> Objects:
        """Return the objects of boxes ``[K, 4]`` (x, y, x, y) or corners ``[K, 8]``, ``[K, N, 2]``.

        Boxes without labels are objects of the class of value 0.
        """
        corners = boxes.reshape(len(boxes), boxes.size // max(len(boxes), 1) // 2, 2)
        names = [name for name in _LABELS if name in sample and name != key]
        given = np.asarray(sample[names[0]]).ravel() if names and len(boxes) else None
        values = np.zeros(len(boxes)) if given is None else given
        if len(values) != len(boxes):
            raise ArchiveError(
                f"{item} has {len(boxes)} boxes and {len(values)} labels; fetch it again."
            )
        found = [(n, self._index(int(value), item)) for n, value in enumerate(values)]
        kept = [(n, index) for n, index in found if index is not None]
        middles = [(corners[n].min(axis=0) + corners[n].max(axis=0)) / 2 for n, _ in kept]
        centres = np.array(middles, np.float64).reshape(-1, 2)[:, ::-1]
        return Objects(centres, np.array([index for _, index in kept], np.int64))

    def _labels(self, label: NDArray[Any], key: str, item: str) -> NDArray[np.uint8]:
        if label.dtype.kind not in "biu" and not np.array_equal(label, np.rint(label)):
            raise ArchiveError(
                f"{item} has the number {label.ravel()[0]:g} as '{key}'; probes take classes, no "
                "measured numbers."
            )
        if label.ndim == 0:
            index = self._index(self._value(int(label), item), item)
            return self._hot([] if index is None else [index])
        self._require_values(label.shape[0], item)
        if label.shape[0] != len(self.values) or set(np.unique(label)) - {0, 1}:
            raise ArchiveError(
                f"{item} has '{key}' of shape {label.shape} up to {label.max()} where "
                f"{len(self.values)} multi-labels of 0 and 1 are expected; set options.class_names."
            )
        indices = (self._index(int(value), item) for value in np.flatnonzero(label))
        return self._hot([index for index in indices if index is not None])

    def _value(self, label: int, item: str) -> int:
        """Return the value of a label, by its folder's name where folders are numbered.

        A missing folder would otherwise shift the labels of all that follow.
        """
        name = self.folders.get(label)
        if name is None or not self.values:
            return label
        if name not in self.values:
            raise ArchiveError(
                f"{item} is in the folder of the class '{name}', which is none of the classes of "
                f"{self.title}; move the folder away, or name all classes in options.class_names: "
                f"{', '.join(self.folders.values())}."
            )
        return self.values.index(name)

    def _mask(
        self, mask: NDArray[Any], size: tuple[int, ...], key: str, item: str
    ) -> NDArray[np.uint8]:
        """Return the class of every pixel ``[H, W]``."""
        if mask.ndim == 3:
            layer = 0 if mask.shape[0] == 1 else (self.options.date or 0) - 1
            if not 0 <= layer < mask.shape[0]:
                raise ArchiveError(
                    f"{item} has '{key}' of {mask.shape[0]} layers; set options.date to one of "
                    f"them, or options.label_key to another than '{key}'."
                )
            mask = mask[layer]
        if mask.shape != size:
            raise ArchiveError(
                f"{item} has a mask {mask.shape} for an image {size}; fetch both again."
            )
        if mask.dtype.kind == "f" and not np.array_equal(mask, np.rint(mask)):
            raise ArchiveError(
                f"{item} has a mask of measured numbers such as {mask.ravel()[0]:g}; probes take "
                "masks of classes."
            )
        values, places = np.unique(mask, return_inverse=True)
        indices = [self._index(int(value), item) for value in values]
        table = np.array([UNDEFINED if i is None else i for i in indices], np.uint8)
        return table[places].reshape(mask.shape)

    def _index(self, value: int, item: str) -> int | None:
        """Return the index of a label value among the classes; None if the value is ignored."""
        if value in self.ignored:
            return None
        self._require_values(value + 1, item)
        if not 0 <= value < len(self.values):
            raise ArchiveError(
                f"{item} holds label {value} where {self.title} has the labels 0 to "
                f"{len(self.values) - 1}; name all in options.class_names, or add {value} to "
                "options.ignore."
            )
        return value - sum(ignored < value for ignored in self.ignored if ignored >= 0)

    def _require_values(self, count: int, item: str) -> None:
        if not self.values:
            raise ArchiveError(
                f"{item} has labels, but the classes of {self.title} are not known; name them in "
                f"options.class_names, from label 0 on (at least {count} names)."
            )

    def _hot(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        classes = sum(value not in self.ignored for value in range(len(self.values)))
        labels = np.zeros(classes, np.uint8)
        labels[list(indices)] = 1
        return labels


def _missing(pixels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Return which values are missing: not a number, or the declared value of nodata."""
    missing: NDArray[np.bool_] = np.isnan(pixels) if pixels.dtype.kind == "f" else pixels != pixels
    return missing if nodata is None else missing | (pixels == nodata)


def _stored(
    pixels: NDArray[Any],
    missing: NDArray[np.bool_],
    sensor: Sensor,
    convert: Conversion | None,
    item: str,
) -> NDArray[Any]:
    """Return pixels ``[H, W, C]`` in the sensor's type; missing ones are 0."""
    values = np.where(missing, 0, pixels)
    if convert is not None:
        values = convert.applied(values)
        values[missing] = 0
    limits = np.iinfo(sensor.dtype)
    wrong = ~np.isfinite(values) | (values < limits.min) | (values > limits.max)
    wrong |= values != np.rint(values)
    if not wrong.any():
        return np.ascontiguousarray(values.astype(sensor.dtype))
    row, column, band = (int(axis[0]) for axis in np.nonzero(wrong))
    found = pixels[row, column, band]
    mend = (
        "correct options.convert"
        if convert is not None
        else ("declare options.convert = { multiply = …, add = … } or options.nodata")
    )
    raise ArchiveError(
        f"{item} holds {found:g} in band '{sensor.bands[band].name}', which tiles of "
        f"{sensor.dtype} ({sensor.unit}) cannot hold; {mend}, or another sensor with dtype, unit "
        "and scale."
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names) or "nothing else"
