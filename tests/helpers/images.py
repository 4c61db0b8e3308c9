"""Image files for tests."""

from pathlib import Path
from typing import Any

from numpy.typing import NDArray
from PIL import Image

from rscl_bench.archives.files import write_tiff


def rewrite(path: Path, pixels: NDArray[Any]) -> None:
    """Replace an image file; files that are hard-linked to it keep their content."""
    path.unlink()
    if path.suffix == ".tif":
        write_tiff(path, pixels)
    else:
        Image.fromarray(pixels.squeeze()).save(path)
