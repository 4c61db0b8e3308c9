"""Refuses files that the library behind TorchGeo would read to other values without an error."""

from collections.abc import Iterable
from pathlib import Path

from rscl_bench.archives.files import open_image, png_depth, require_whole
from rscl_bench.archives.formats import DamagedFileError
from rscl_bench.archives.torchgeo.opened_files import Opened


def require_sound(opened: Opened, dtype: str) -> None:
    """Refuse what is silently read wrong: see the notes of `rscl_bench.archives.files`.

    GDAL reads rows that a PNG lacks as zeros, and blocks that a TIFF lacks too. Pillow narrows a
    PNG of 16 bits to 8.

    Args:
        opened: The files of an item.
        dtype: Type of the sensor's pixels.

    Raises:
        ArchiveError: If a file is damaged, or has more bits than the sensor declares.
    """
    for path in _with_suffix(opened.by_gdal, ".tif", ".tiff"):
        require_whole(path)
    for path in _with_suffix(opened.by_gdal, ".png"):
        with open_image(path, ("PNG",)) as image:
            image.pixels()
    read_by_pillow = set(opened.paths) - set(opened.by_gdal)
    for path in _with_suffix(read_by_pillow, ".png"):
        if dtype == "uint8" and png_depth(path) == 16:
            raise DamagedFileError(
                f"{path} has 16 bits a channel, which TorchGeo narrows to 8 without a word"
            )


def _with_suffix(paths: Iterable[Path], *suffixes: str) -> list[Path]:
    return sorted(path for path in paths if path.suffix.lower() in suffixes)
