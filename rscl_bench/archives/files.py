"""Strict reading and writing of image files.

Each of the two readers is used only where it fails loudly. Pillow refuses every truncated PNG and
JPEG, while GDAL silently fills the missing rows of a PNG with zeros. GDAL refuses every truncated
TIFF.
"""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning


def read_picture(path: Path, mode: str | None = None) -> NDArray[Any]:
    """Read a PNG or JPEG to its last byte.

    Args:
        path: The file.
        mode: Pillow mode to convert to, for label pictures; None keeps the bands of the file.

    Returns:
        Pixels, ``[H, W, C]``, in the file's dtype.

    Raises:
        OSError: If the file is truncated or no picture.
    """
    with Image.open(path) as picture:
        picture.load()
        pixels = np.asarray(picture if mode is None else picture.convert(mode))
    return pixels if pixels.ndim == 3 else pixels[:, :, None]


def read_tiff(path: Path) -> NDArray[Any]:
    """Read all bands of a TIFF.

    Args:
        path: The file.

    Returns:
        Pixels, ``[H, W, C]``, in the file's dtype.

    Raises:
        rasterio.errors.RasterioIOError: If the file is truncated or no TIFF.
    """
    with warnings.catch_warnings():
        # Most of these archives carry no coordinates, and adapters need none.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, driver="GTiff") as file:
            return np.ascontiguousarray(np.moveaxis(file.read(), 0, 2))


def write_tiff(path: Path, pixels: NDArray[Any], **options: Any) -> None:
    """Write pixels ``[H, W, C]`` as a TIFF; ``options`` are GDAL's creation options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = pixels.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            height=height,
            width=width,
            count=bands,
            dtype=pixels.dtype,
            blockysize=height,  # one strip: many small strips take longer to write
            **options,
        ) as file:
            file.write(np.moveaxis(pixels, 2, 0))


def write_picture(path: Path, pixels: NDArray[np.uint8], **options: Any) -> None:
    """Write pixels ``[H, W, 3]`` as a PNG or JPEG; the suffix of ``path`` chooses the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)
