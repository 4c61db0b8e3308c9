"""Masks: pictures of class numbers beside the images."""

import re
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.adapter import UNDEFINED
from rscl_bench.archives.files import open_image
from rscl_bench.archives.folder.arrays import is_array_file, read_array
from rscl_bench.archives.folder.options import MaskLabels
from rscl_bench.archives.folder.walk import folder_at, folder_names
from rscl_bench.errors import ArchiveError

_FORMATS = ("PNG", "TIFF", "JPEG")


def mask_path(rule: MaskLabels, image: str) -> str:
    """Return the path below root of an image's mask.

    Args:
        rule: The rule of the options.
        image: Path of the image below root.

    Raises:
        ArchiveError: If the image has no folder that the rule names.
    """

    def place(match: re.Match[str]) -> str:
        path = PurePosixPath(image)
        match match[1]:
            case "stem":
                return path.stem
            case "name":
                return path.name
            case "folder":
                return "/".join(folder_names(image)) or "."
        name = folder_at(image, int(match[1]))
        if name is None:
            raise ArchiveError(
                f"{image} has no folder {match[1]} below root for labels.path = '{rule.path}'; "
                "narrow 'pattern', or correct the path."
            )
        return name

    return str(PurePosixPath(re.sub(r"\{([^{}]*)\}", place, rule.path)))


def read_mask(path: Path, rule: MaskLabels, max_pixels: int) -> NDArray[np.uint8]:
    """Read the mask of an image.

    Args:
        path: A picture of one band, or a NumPy file ``[H, W]``.
        rule: The values of the classes.
        max_pixels: Largest number of pixels.

    Returns:
        Class of every pixel, ``[H, W]``, 255 where undefined.

    Raises:
        ArchiveError: If the file is damaged, or holds other values.
    """
    values = _values(path, max_pixels)
    if rule.threshold is not None:
        last = len(rule.classes) - 1
        rest = np.uint8(UNDEFINED if last == 0 else 0)
        return np.where(values >= rule.threshold, np.uint8(last), rest)
    mask = np.full(values.shape, UNDEFINED, np.uint8)
    known = np.zeros(values.shape, np.bool_)
    for number, value in enumerate(rule.class_values()):
        mask[values == value] = number
        known |= values == value
    for value in rule.ignored:
        known |= values == value
    if not known.all():
        others = np.unique(values[~known])
        shown = ", ".join(map(str, others[:5])) + (", ..." if len(others) > 5 else "")
        raise ArchiveError(
            f"The mask {path} holds the values {shown}, which are no class; add them to "
            "labels.ignored or labels.values, or set labels.threshold."
        )
    return mask


def _values(path: Path, max_pixels: int) -> NDArray[np.integer]:
    if is_array_file(path):
        values = read_array(path, max_pixels)
    else:
        with open_image(path, _FORMATS) as image:
            image.header.require_at_most(max_pixels, max_bands=4)
            values = image.pixels("keep")
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim != 2:
        raise ArchiveError(
            f"The mask {path} has shape {values.shape} where a mask has one band of class numbers; "
            "convert its colours to numbers."
        )
    if values.dtype == np.bool_:
        return values.astype(np.uint8)
    if not np.issubdtype(values.dtype, np.integer):
        raise ArchiveError(f"The mask {path} holds {values.dtype} values; store whole numbers.")
    return values
