"""Turns the samples of a torch dataset into arrays: images, labels and masks.

A sample is an image, a pair of image and label, or a dictionary of TorchGeo with ``image`` and
``label`` or ``mask``. Values are stored as they are; what would need rounding is refused.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rscl_bench.archives.adapter import UNDEFINED
from rscl_bench.errors import ArchiveError
from rscl_bench.sensors import Sensor


@dataclass(frozen=True)
class Sample:
    """One sample as arrays.

    Attributes:
        image: Pixels, ``[H, W, C]``, in the sensor's dtype.
        labels: Multi-labels, ``[L]`` ``uint8`` of 0 and 1, or None.
        mask: Class of every pixel, ``[H, W]`` ``uint8``, 255 where undefined, or None.
    """

    image: NDArray[Any]
    labels: NDArray[np.uint8] | None = None
    mask: NDArray[np.uint8] | None = None

    @property
    def kind(self) -> str:
        """What the sample has besides its image."""
        return "labels" if self.labels is not None else "a mask" if self.mask is not None else ""


def as_sample(item: Any, sensor: Sensor, classes: Sequence[str], where: str) -> Sample:
    """Return a sample of a torch dataset as arrays.

    Args:
        item: The sample.
        sensor: The sensor of the image.
        classes: Names of the classes; without them, labels are left out.
        where: Which sample it is, for messages.

    Raises:
        ArchiveError: If the sample has another form, or values that the sensor has not.
    """
    image, truth = _parts(item, where)
    pixels = _image(image, sensor, where)
    if not classes:
        return Sample(pixels)
    if truth is None:
        raise ArchiveError(f"{where} has no label; give no classes, or a dataset with labels.")
    return _labelled(pixels, _array(truth, where), len(classes), where)


def _parts(item: Any, where: str) -> tuple[Any, Any]:
    if isinstance(item, Mapping):
        if "image" not in item:
            raise ArchiveError(f"{where} has the keys {sorted(item)} and no 'image'; rename one.")
        truths = [item[key] for key in ("label", "mask") if key in item]
        if len(truths) > 1:
            raise ArchiveError(f"{where} has a label and a mask; leave one out by a transform.")
        return item["image"], truths[0] if truths else None
    if isinstance(item, tuple | list):
        if len(item) != 2:
            raise ArchiveError(f"{where} has {len(item)} parts; give (image, label).")
        return item[0], item[1]
    return item, None


def _array(value: Any, where: str) -> NDArray[Any]:
    tensor = value.detach().cpu().numpy() if hasattr(value, "detach") else value
    array = np.asarray(tensor)
    if array.dtype.kind not in "biuf":
        raise ArchiveError(
            f"{where} holds {type(value).__name__} where a tensor or a number is expected; convert "
            "it by a transform."
        )
    return array


def _image(value: Any, sensor: Sensor, where: str) -> NDArray[Any]:
    pixels, bands = _array(value, where), len(sensor.bands)
    if isinstance(value, Image.Image):
        pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
    elif pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, 2)
    if pixels.ndim != 3 or pixels.shape[2] != bands or 0 in pixels.shape:
        raise ArchiveError(
            f"{where} has an image of shape {tuple(np.shape(value))} where sensor {sensor.name} "
            f"has {bands} bands; give tensors [{bands}, H, W]."
        )
    return np.ascontiguousarray(_whole(pixels, np.dtype(sensor.dtype), where))


def _whole(values: NDArray[Any], dtype: np.dtype[Any], where: str) -> NDArray[Any]:
    """Return values in an integer type that holds every one of them."""
    limits = np.iinfo(dtype)
    # A comparison with NaN is false.
    wrong = ~((values >= limits.min) & (values <= limits.max))
    if values.dtype.kind == "f":
        wrong |= values != np.rint(values)
    if wrong.any():
        raise ArchiveError(
            f"{where} holds the value {values[wrong].flat[0]:g}, which is no whole number from 0 "
            f"to {limits.max}; give the stored values, such as by PILToTensor in place of ToTensor."
        )
    return values.astype(dtype)


def _labelled(pixels: NDArray[Any], truth: NDArray[Any], classes: int, where: str) -> Sample:
    if truth.ndim == 3 and truth.shape[0] == 1:
        truth = truth[0]
    whole = _whole(truth, np.dtype(np.uint8), f"The label of {where}")
    if truth.ndim == 2:
        if truth.shape != pixels.shape[:2]:
            raise ArchiveError(f"{where} has a mask {truth.shape} for an image {pixels.shape[:2]}.")
        _require_below(int(whole[whole != UNDEFINED].max(initial=0)), classes, where)
        return Sample(pixels, mask=whole)
    if truth.ndim == 1 and truth.shape != (1,):
        if truth.shape != (classes,) or whole.max(initial=0) > 1:
            raise ArchiveError(
                f"{where} has labels {truth.shape} up to {whole.max(initial=0)} where {classes} "
                "numbers of 0 and 1 are expected."
            )
        return Sample(pixels, labels=whole)
    if whole.size != 1:
        raise ArchiveError(f"{where} has a label of shape {truth.shape}; give a class or a mask.")
    number = int(whole.item())
    _require_below(number, classes, where)
    return Sample(pixels, labels=np.eye(classes, dtype=np.uint8)[number])


def _require_below(number: int, classes: int, where: str) -> None:
    if number >= classes:
        raise ArchiveError(f"{where} has class {number} where {classes} classes are named.")
