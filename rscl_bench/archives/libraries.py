"""The switches of Pillow and GDAL that change what a reader returns, set around each read.

Pillow keeps its switches in modules, and GDAL takes them from the environment, so that the code of
one dataset could change what is read from all others.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import rasterio
from PIL import Image, ImageFile
from rasterio.errors import NotGeoreferencedWarning

#: Options of GDAL, which come before its environment variables.
_GDAL = {
    "GTIFF_IGNORE_READ_ERRORS": "NO",  # otherwise the rest of a truncated file is filled
    "CONVERT_YCBCR_TO_RGB": "YES",
    "GTIFF_DIRECT_IO": "NO",
    "GTIFF_VIRTUAL_MEM_IO": "NO",
    "GDAL_GEOREF_SOURCES": "INTERNAL",
    # Values must not depend on files beside the image (.aux.xml, .msk, .ovr): a change of these
    # files would not be noticed. GDAL would also list the whole folder for every image.
    "GDAL_PAM_ENABLED": "NO",
    "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
}


@contextmanager
def strict_libraries(max_pixels: int | None = None) -> Iterator[None]:
    """Let Pillow and GDAL refuse truncated files within a block, whatever was set outside.

    Args:
        max_pixels: Pixels above which Pillow refuses an image; None where the caller checks.
    """
    before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS
    ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, max_pixels
    try:
        with rasterio.Env(**_GDAL), warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # Most archives carry no coordinates, and adapters need none.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = before
