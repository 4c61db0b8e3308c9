"""Reads images that are stored as NumPy files, one array a file."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rscl_bench.archives.files import Header

SUFFIX = ".npy"


def is_array_file(path: Path) -> bool:
    """Return whether a file is a NumPy file by its suffix."""
    return path.suffix.lower() == SUFFIX


def array_header(path: Path) -> Header:
    """Read the header of a NumPy file, and no element.

    Raises:
        ValueError: If the file is damaged, or holds something else than ``[H, W]`` or
            ``[H, W, C]``.
    """
    with path.open("rb") as file:
        version = np.lib.format.read_magic(file)
        reader = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if reader is None:
            raise ValueError(f"version {version} of the NumPy format is not read")
        shape, _, dtype = reader(file)
    if dtype.hasobject or len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"an array of shape {shape} and type {dtype} is no image [H, W, C]")
    bands = shape[2] if len(shape) == 3 else 1
    return Header(path, "NumPy", shape[1], shape[0], bands, dtype.name)


def read_array(path: Path, max_pixels: int, max_bands: int = 64) -> NDArray[Any]:
    """Read an array, after a look at its header.

    Args:
        path: A NumPy file.
        max_pixels: Largest number of pixels.
        max_bands: Largest number of bands.

    Returns:
        ``[H, W]`` or ``[H, W, C]`` in the stored type, in the byte order of this machine.

    Raises:
        ArchiveError: If the array is too large.
        ValueError: If the file is damaged.
    """
    array_header(path).require_at_most(max_pixels, max_bands)
    with path.open("rb") as file:
        array: NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise ValueError("bytes follow the array")
    return np.ascontiguousarray(array.astype(array.dtype.newbyteorder("="), copy=False))
