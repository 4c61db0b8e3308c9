"""What the datasets share: strict reading of files, and the marker of a sketch archive.

Two readers of images are trusted here, and each only where it fails loudly. Pillow refuses every
truncated PNG and JPEG, where GDAL fills the missing rows of a PNG with zeros and says nothing;
GDAL refuses every truncated TIFF.
"""

import shutil
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio.errors import NotGeoreferencedWarning

from rscl_bench.archives.adapter import SKETCH_MARKER, DatasetAdapter
from rscl_bench.errors import ArchiveError

_MARKER_HEADER = "Synthetic images drawn by rscl-bench, not the archive of this name. Files:"


def read_picture(path: Path, mode: str | None = None) -> NDArray[Any]:
    """Read a PNG or JPEG to its last byte.

    Args:
        path: The file.
        mode: Pillow mode to convert to, for label pictures; None keeps the file's own bands.

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
        # Most of these archives carry no coordinates, and none are needed.
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
            blockysize=height,  # one strip; many small ones take longer to write
            **options,
        ) as file:
            file.write(np.moveaxis(pixels, 2, 0))


def write_picture(path: Path, pixels: NDArray[np.uint8], **options: Any) -> None:
    """Write pixels ``[H, W, 3]`` as a PNG or JPEG, by suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


@contextmanager
def sketch_folder(data_root: Path, folder: str) -> Iterator[Path]:
    """Open a folder for a sketch archive, and mark it as one.

    The marker is there, empty, before the first image, so that a sketch whose writing was cut off
    is refused instead of being taken for a real archive; at the end it lists every file.

    Args:
        data_root: Folder that holds the archives.
        folder: The archive's folder below it.

    Yields:
        The folder to write into; an earlier sketch in it is gone.

    Raises:
        ArchiveError: If the folder holds files that are no sketch.
    """
    root = data_root / folder
    marker = root / SKETCH_MARKER
    if root.is_dir() and any(root.iterdir()):
        if not marker.is_file():
            raise ArchiveError(f"{root} holds files that are no sketch; they are not overwritten.")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    marker.write_text("", encoding="utf-8")
    yield root
    files = sorted(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())
    files.remove(SKETCH_MARKER)
    marker.write_text("\n".join([_MARKER_HEADER, *files]) + "\n", encoding="utf-8")


class ArchiveAdapter(DatasetAdapter):
    """An adapter that knows a sketch from the real archive.

    The real archive must hold every file that its publisher put there. A sketch is smaller; it
    must hold what its marker lists.
    """

    @abstractmethod
    def _list(self) -> list[Path]:
        """List the image files of the split in a fixed order; see ``DatasetAdapter._find``."""

    def _find(self) -> list[Path]:
        if self.is_sketch:
            lines = (self.root / SKETCH_MARKER).read_text(encoding="utf-8").splitlines()
            if lines[:1] != [_MARKER_HEADER]:
                raise ArchiveError(
                    f"The sketch archive {self.root} was not written to its end; delete it."
                )
            for line in lines[1:]:
                if not (self.root / line).is_file():
                    raise self.missing(f"{self.root / line}, listed in {SKETCH_MARKER}, is absent")
        return self._list()

    def _demand(self, paths: list[Path]) -> None:
        """Raise ``ArchiveError`` with the first of the files that does not exist.

        Folders are listed once instead of asking for each file: archives have tens of thousands.
        """
        folders: dict[Path, set[str]] = {}
        absent = []
        for path in paths:
            if path.parent not in folders:
                parent = path.parent
                folders[parent] = {p.name for p in parent.iterdir()} if parent.is_dir() else set()
            if path.name not in folders[path.parent]:
                absent.append(path)
        if absent:
            more = f" and {len(absent) - 1} more files do" if len(absent) > 1 else " does"
            raise self.missing(f"{absent[0]}{more} not exist")

    def _demand_count(self, found: int, expected: int, what: str) -> None:
        """Raise ``ArchiveError`` if a real archive holds another number of files."""
        if found != expected and not self.is_sketch:
            raise self.missing(f"{self.root} holds {found} {what} where there are {expected}")
