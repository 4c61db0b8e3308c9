"""Strict reading and writing of image files.

Size, bands and type are known from the header before pixels are decoded, so that a small file
cannot fill the memory. Each of the two readers is used only where it fails loudly: Pillow refuses
every truncated PNG and JPEG, while GDAL silently fills the missing rows of a PNG with zeros. GDAL
refuses every truncated TIFF. Pillow narrows PNGs of 16 bits to 8; GDAL reads these values.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rasterio.enums import Interleaving, MaskFlags

from rscl_bench.archives.formats import DamagedFileError, format_of, unreachable
from rscl_bench.archives.libraries import strict_libraries
from rscl_bench.errors import ArchiveError

#: Largest number of pixels of an image: just above a whole Sentinel-2 tile (10,980 × 10,980).
MAX_PIXELS = 1 << 27
#: What happens to pixels that a file declares as missing: they fill with the mean of the others
#: and stay out of the statistics, they refuse the file, or they are measurements like the others.
Nodata = Literal["fill", "refuse", "keep"]

_BANDS = {"1": 1, "L": 1, "P": 1, "I;16": 1, "I": 1, "LA": 2, "PA": 2, "RGB": 3}
_BANDS |= {"RGBA": 4, "CMYK": 4}
_DTYPES = {"1": "bool", "I;16": "uint16", "I": "int32"}
#: Type of colour in the header of a PNG to its number of channels.
_PNG_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}


@dataclass(frozen=True)
class Header:
    """What the header of an image says; no pixel has been decoded.

    Attributes:
        path: The file.
        format: ``"JPEG"``, ``"PNG"`` or ``"TIFF"``.
        width: Width in pixels.
        height: Height in pixels.
        bands: Number of bands.
        dtype: NumPy name of the stored type.
    """

    path: Path
    format: str
    width: int
    height: int
    bands: int
    dtype: str

    def require_at_most(self, max_pixels: int, max_bands: int) -> None:
        """Refuse an image that is larger than what a dataset declares.

        Raises:
            ArchiveError: If the image has more pixels or more bands.
        """
        if self.width * self.height > max_pixels:
            raise ArchiveError(
                f"{self.path} has {self.width}×{self.height} pixels, more than the {max_pixels:,} "
                "that are decoded; cut it into parts, or raise the dataset's max_pixels."
            )
        if self.bands > max_bands:
            raise ArchiveError(
                f"{self.path} has {self.bands} bands, more than the {max_bands} that are decoded; "
                "store fewer bands in a file."
            )


class OpenImage(ABC):
    """An image whose header has been read.

    Attributes:
        header: The header.
    """

    header: Header

    @abstractmethod
    def pixels(self, nodata: Nodata = "refuse") -> NDArray[Any]:
        """Decode all pixels, ``[H, W, C]`` in the stored type.

        Args:
            nodata: What to do with pixels that the file declares as missing. With ``"fill"``, the
                result is a masked array if there are any.

        Raises:
            ArchiveError: If the file is damaged, lacks blocks, or holds refused pixels.
        """


@contextmanager
def open_image(path: Path, formats: tuple[str, ...]) -> Iterator[OpenImage]:
    """Open an image and read its header.

    Args:
        path: The file; its content, not its suffix, decides how the file is read.
        formats: Accepted formats, among ``"JPEG"``, ``"PNG"`` and ``"TIFF"``.

    Yields:
        The opened image.

    Raises:
        ArchiveError: If the file is missing, damaged or of another format.
    """
    found = format_of(path, formats)
    with strict_libraries(), _named_errors(path):
        if found == "TIFF":
            with rasterio.open(path, driver="GTiff") as file:
                yield _Tiff(path, file)
        else:
            with Image.open(path, formats=(found,)) as picture:
                yield _Picture(path, found, picture)


@contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Turn every error of a library into an `ArchiveError` that names the file."""
    try:
        yield
    except ArchiveError:
        raise
    except PermissionError as error:
        raise unreachable(path, error) from error
    except MemoryError as error:
        raise ArchiveError(
            f"{path} does not fit into memory; cut it into parts, or use a machine with more."
        ) from error
    except UnidentifiedImageError as error:
        raise DamagedFileError(
            f"{path} cannot be read: it is damaged, or of a kind that Pillow does not decode, such "
            "as 12 bits a channel; convert it to 8 bits"
        ) from error
    except Exception as error:  # decoders of damaged files raise errors of many types
        raise DamagedFileError(
            f"{path} cannot be read ({type(error).__name__}: {error})"
        ) from error


class _Picture(OpenImage):
    """A PNG or JPEG."""

    def __init__(self, path: Path, name: str, picture: Image.Image):
        self.picture = picture
        bands, dtype = _BANDS.get(picture.mode, 0), _DTYPES.get(picture.mode, "uint8")
        self._wide = name == "PNG" and png_depth(path) == 16
        if self._wide:
            bands, dtype = _png_channels(path), "uint16"
        self.header = Header(path, name, *picture.size, bands, dtype)

    def pixels(self, nodata: Nodata = "refuse") -> NDArray[Any]:
        self.picture.load()
        if self._wide:
            return _wide_pixels(self.header.path, self.picture)
        pixels = np.asarray(self.picture)
        return pixels if pixels.ndim == 3 else pixels[:, :, None]


def _png_header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(26)


def png_depth(path: Path) -> int:
    """Return the number of bits a channel that the header of a PNG states."""
    return _png_header(path)[24]


def _png_channels(path: Path) -> int:
    return _PNG_CHANNELS[_png_header(path)[25]]


def _wide_pixels(path: Path, picture: Image.Image) -> NDArray[Any]:
    """Return the values of a PNG of 16 bits, ``[H, W, C]`` ``uint16``, through GDAL.

    Pillow has read the file to its end and gives the upper bytes of several channels, so that rows
    that GDAL fills with zeros are noticed.
    """
    with rasterio.open(path, driver="PNG") as file:
        pixels: NDArray[Any] = np.ascontiguousarray(np.moveaxis(file.read(), 0, 2))
    upper = np.asarray(picture)
    upper = upper.reshape(*upper.shape[:2], -1)
    if (pixels.shape[2], upper.shape[2]) == (2, 4):  # Pillow repeats the grey of grey with alpha
        upper = upper[:, :, ::3]
    seen = pixels if upper.shape[2] == 1 else pixels >> 8
    if not np.array_equal(seen, upper):
        raise DamagedFileError(f"{path} is decoded to other pixels by Pillow than by GDAL")
    return pixels


class _Tiff(OpenImage):
    """A TIFF."""

    def __init__(self, path: Path, file: Any):
        self.file = file
        dtype = np.result_type(*file.dtypes).name
        self.header = Header(path, "TIFF", file.width, file.height, file.count, dtype)

    def pixels(self, nodata: Nodata = "refuse") -> NDArray[Any]:
        pixels = np.ascontiguousarray(np.moveaxis(self.file.read(), 0, 2))
        fills = self.file.nodata is not None and nodata != "keep"
        if not fills and _lacks_blocks(self.file):
            raise _sparse(self.header.path)
        if nodata == "keep":
            return pixels
        missing = _declared_missing(self.file)
        if missing is None or not missing.any():
            return pixels
        if nodata == "refuse":
            raise ArchiveError(
                f"{self.header.path} declares {int(missing.any(axis=2).sum()):,} of its "
                f"{self.header.width * self.header.height:,} pixels as missing (nodata); set "
                'nodata to "fill" or "keep" in the adapter\'s class and read with read_image.'
            )
        return np.ma.MaskedArray(filled(pixels, missing), mask=missing)


def require_whole(path: Path) -> None:
    """Refuse a TIFF that lacks blocks and declares no nodata value for them.

    Raises:
        ArchiveError: If the file is no TIFF that can be read, or lacks blocks.
    """
    with open_image(path, ("TIFF",)) as image:
        assert isinstance(image, _Tiff)
        if image.file.nodata is None and _lacks_blocks(image.file):
            raise _sparse(path)


def _sparse(path: Path) -> DamagedFileError:
    return DamagedFileError(
        f"{path} lacks some of its blocks, which would be read as zeros: its writer was stopped, "
        "or wrote it sparse without a nodata value"
    )


def _lacks_blocks(file: Any) -> bool:
    """Return whether blocks of a TIFF were never written; GDAL reads such blocks as zeros."""
    height, width = file.block_shapes[0]
    rows, columns = math.ceil(file.height / height), math.ceil(file.width / width)
    bands = file.indexes if file.interleaving == Interleaving.band else (1,)
    return any(
        file.get_tag_item(f"BLOCK_OFFSET_{column}_{row}", "TIFF", bidx=band) is None
        for band in bands
        for row in range(rows)
        for column in range(columns)
    )


def _declared_missing(file: Any) -> NDArray[np.bool_] | None:
    """Return where nodata value or mask declare pixels as missing, ``[H, W, C]``; None for neither.

    An alpha band declares nothing: the infrared band of some archives is tagged as alpha.
    """
    declaring = [
        band
        for band, flags in zip(file.indexes, file.mask_flag_enums, strict=True)
        if MaskFlags.nodata in flags
        or (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags)
    ]
    if not declaring:
        return None
    missing = np.zeros((file.height, file.width, file.count), np.bool_)
    for band in declaring:
        missing[:, :, band - 1] = file.read_masks(band) == 0
    return missing


def filled(pixels: NDArray[Any], missing: NDArray[np.bool_]) -> NDArray[Any]:
    """Replace missing pixels by the rounded mean of the band's others, or by 0 without others."""
    pixels = pixels.copy()
    for band in range(pixels.shape[2]):
        plane, absent = pixels[:, :, band], missing[:, :, band]
        plane[absent] = np.rint(plane[~absent].mean()) if not absent.all() else 0
    return pixels


def read_picture(path: Path, mode: str | None = None, max_pixels: int = MAX_PIXELS) -> NDArray[Any]:
    """Read a PNG or JPEG to its last byte.

    Args:
        path: The file.
        mode: Pillow mode of 8 bits to convert to, for label pictures; None keeps the bands of the
            file.
        max_pixels: Largest number of pixels.

    Returns:
        Pixels, ``[H, W, C]``, in the file's dtype.

    Raises:
        ArchiveError: If the file is damaged, too large, no PNG or JPEG, or has more than 8 bits
            where ``mode`` is given.
    """
    with open_image(path, ("PNG", "JPEG")) as image:
        image.header.require_at_most(max_pixels, max_bands=4)
        if mode is None:
            return image.pixels()
        if image.header.dtype not in ("uint8", "bool"):
            raise ArchiveError(
                f"{path} has {image.header.dtype} values where a mask has 8 bits a channel; "
                "convert it to 8 bits."
            )
        assert isinstance(image, _Picture)
        pixels = np.asarray(image.picture.convert(mode))
        return pixels if pixels.ndim == 3 else pixels[:, :, None]


def read_tiff(
    path: Path, nodata: Nodata = "refuse", max_pixels: int = MAX_PIXELS, max_bands: int = 64
) -> NDArray[Any]:
    """Read all bands of a TIFF.

    Args:
        path: The file.
        nodata: What to do with pixels that the file declares as missing; see `Nodata`.
        max_pixels: Largest number of pixels.
        max_bands: Largest number of bands.

    Returns:
        Pixels, ``[H, W, C]``, in the file's dtype.

    Raises:
        ArchiveError: If the file is damaged, too large, no TIFF, lacks blocks, or declares pixels
            as missing and ``nodata`` refuses these.
    """
    with open_image(path, ("TIFF",)) as image:
        image.header.require_at_most(max_pixels, max_bands)
        return image.pixels(nodata)


def write_tiff(path: Path, pixels: NDArray[Any], **options: Any) -> None:
    """Write pixels ``[H, W, C]`` as a TIFF; ``options`` are GDAL's creation options."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, bands = pixels.shape
    # One strip: many small strips take longer to write.
    profile = {"driver": "GTiff", "dtype": pixels.dtype, "blockysize": height, **options}
    with (
        strict_libraries(),
        rasterio.open(path, "w", height=height, width=width, count=bands, **profile) as file,
    ):
        file.write(np.moveaxis(pixels, 2, 0))


def write_picture(path: Path, pixels: NDArray[np.uint8], **options: Any) -> None:
    """Write pixels ``[H, W, 1 or 3]`` as a PNG or JPEG; the suffix of ``path`` chooses."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels).save(path, **options)
