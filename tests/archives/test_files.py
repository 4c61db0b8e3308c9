"""Image files of many kinds: read to the stored values, or refused with cause and mend."""

import os
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from helpers.images import rewrite
from numpy.typing import NDArray
from PIL import Image, ImageFile
from rasterio.errors import NotGeoreferencedWarning

from rscl_bench.archives.aid import AIDAdapter
from rscl_bench.archives.files import MAX_PIXELS, read_picture, read_tiff, write_tiff
from rscl_bench.archives.rsscn7 import RSSCN7Adapter
from rscl_bench.archives.uavid import UAVidAdapter
from rscl_bench.archives.ucmerced import UCMercedAdapter
from rscl_bench.errors import ArchiveError

Copy = Callable[[str], Path]


def noise(*shape: int, dtype: str = "uint8", top: int = 256) -> NDArray[Any]:
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


def png(path: Path, pixels: NDArray[Any], depth: int) -> None:
    """Write a PNG by its specification, as an independent reference: rows of big-endian values."""
    height, width, channels = pixels.shape
    colour = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    rows = pixels.astype(">u2" if depth == 16 else "u1").reshape(height, -1)
    write_rows(path, (width, height, depth, colour), [row.tobytes() for row in rows])


def write_rows(path: Path, header: tuple[int, int, int, int], rows: list[bytes]) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        content = kind + data
        return struct.pack(">I", len(data)) + content + struct.pack(">I", zlib.crc32(content))

    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *header, 0, 0, 0))
    body = head + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


# PNGs of 16 bits, which Pillow narrows to 8.


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_a_png_of_16_bits_keeps_its_values(tmp_path: Path, channels: int) -> None:
    pixels = noise(9, 7, channels, dtype="uint16", top=4000)
    png(tmp_path / "x.png", pixels, depth=16)
    read = read_picture(tmp_path / "x.png")
    assert read.dtype == np.uint16
    assert np.array_equal(read, pixels)


@pytest.mark.parametrize("kept", [0.5, 0.8, 0.95])
def test_a_truncated_png_of_16_bits_is_refused(tmp_path: Path, kept: float) -> None:
    path = tmp_path / "x.png"
    png(path, noise(64, 64, 3, dtype="uint16", top=4000), depth=16)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ArchiveError, match=r"x\.png cannot be read"):
        read_picture(path)


def test_a_mask_of_16_bits_is_refused(sketch_of: Copy) -> None:
    adapter = UAVidAdapter(sketch_of("uavid"), "val")
    mask = adapter.masks[0]
    mask.unlink()
    png(mask, np.full((768, 1024, 3), 128), depth=16)
    with pytest.raises(ArchiveError, match="has uint16 values where a mask has 8 bits") as error:
        adapter.scene(0, with_labels=True)
    assert str(mask) in str(error.value)


def test_a_png_of_16_bits_is_told_its_type(sketch_of: Copy) -> None:
    adapter = UAVidAdapter(sketch_of("uavid"), "val")
    adapter.files[0].unlink()
    png(adapter.files[0], noise(8, 8, 3), depth=16)
    with pytest.raises(ArchiveError, match="is uint16 where UAVid is uint8"):
        adapter.scene(0)


# Pictures of other kinds.


def test_the_exif_rotation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90°
    Image.fromarray(noise(8, 24, 3)).save(tmp_path / "x.jpg", exif=exif)
    assert read_picture(tmp_path / "x.jpg").shape == (8, 24, 3)


def test_an_alpha_channel_is_a_band_and_a_palette_gives_indices(tmp_path: Path) -> None:
    pixels = noise(8, 8, 4)
    png(tmp_path / "x.png", pixels, depth=8)
    assert np.array_equal(read_picture(tmp_path / "x.png"), pixels)
    indices = noise(8, 8, top=3)
    picture = Image.fromarray(indices).convert("P")
    picture.putdata(indices.ravel().tolist())
    picture.putpalette([9, 9, 9, 50, 60, 70, 1, 2, 3])
    picture.save(tmp_path / "p.png", bits=8)
    assert np.array_equal(read_picture(tmp_path / "p.png")[:, :, 0], indices)


def test_a_grey_png_of_4_bits_is_scaled_and_a_tiff_of_1_bit_is_not(tmp_path: Path) -> None:
    write_rows(tmp_path / "x.png", (4, 1, 4, 0), [b"\x01\xef"])
    assert read_picture(tmp_path / "x.png")[0, :, 0].tolist() == [0, 17, 238, 255]
    bits = noise(9, 7, 1, top=2)
    write_tiff(tmp_path / "x.tif", bits, nbits=1)
    assert np.array_equal(read_tiff(tmp_path / "x.tif"), bits)


def test_the_first_page_of_a_tiff_is_read(tmp_path: Path) -> None:
    first, second = (Image.fromarray(noise(8, 8) // n) for n in (1, 2))
    first.save(tmp_path / "x.tif", save_all=True, append_images=[second])
    assert np.array_equal(read_tiff(tmp_path / "x.tif")[:, :, 0], noise(8, 8))


@pytest.mark.parametrize(
    "options",
    [
        {"tiled": True, "blockxsize": 16, "blockysize": 16},
        {"BIGTIFF": "YES"},
        {"ENDIANNESS": "BIG"},
        {"compress": "deflate", "predictor": 2},
        {"compress": "lzw", "interleave": "band"},
        {"compress": "zstd", "interleave": "pixel"},
        {"compress": "lerc_deflate"},
        {"nbits": 12},
    ],
)
def test_kinds_of_tiff_keep_their_values(tmp_path: Path, options: dict[str, Any]) -> None:
    pixels = noise(33, 47, 3, dtype="uint16", top=4096)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        profile = {"driver": "GTiff", "width": 47, "height": 33, "count": 3, "dtype": "uint16"}
        with rasterio.open(tmp_path / "x.tif", "w", **profile, **options) as file:
            file.write(np.moveaxis(pixels, 2, 0))
    assert np.array_equal(read_tiff(tmp_path / "x.tif"), pixels)


# What is no image, or of another format.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again from"),
        (b"<!DOCTYPE html><html>", "is a web page, so the download failed; fetch it again from"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS; .* git lfs pull"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "is a JPEG 2000 file and no JPEG; convert it to JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is a PostScript file and no JPEG"),
        (b"BM" + bytes(60), "is a BMP file and no JPEG"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "is a WebP file and no JPEG"),
        (b"II*\0" + bytes(60), "is a TIFF file and no JPEG"),
        (b"\0\x05\x16\x07\0\x02\0\0Mac OS X", "that a Mac wrote .* delete it"),
        (b"nothing", "does not begin as a JPEG file; fetch it again from"),
        (b"\xff\xd8\xff\xe0" + bytes(60), "damaged, or of a kind .* such as 12 bits a channel"),
    ],
)
def test_a_file_that_is_no_jpeg_is_refused_with_cause_and_mend(
    sketch_of: Copy, tmp_path: Path, content: bytes, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", str(ghostscript.parent), prepend=os.pathsep)
    adapter = RSSCN7Adapter(sketch_of("rsscn7"), "train")
    path = adapter.files[0]
    path.unlink()
    path.write_bytes(content)
    with pytest.raises(ArchiveError, match=message) as error:
        adapter.scene(0)
    assert str(path) in str(error.value)
    assert "--on-bad-tile skip" in str(error.value)
    assert not (tmp_path / "started").exists()


def test_a_wrong_suffix_does_not_matter(tmp_path: Path) -> None:
    png(tmp_path / "x.jpg", noise(8, 8, 3), depth=8)
    assert np.array_equal(read_picture(tmp_path / "x.jpg"), noise(8, 8, 3))


# Special files, links and permissions.


def test_a_pipe_and_a_socket_are_refused_and_not_opened(
    sketch_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = RSSCN7Adapter(sketch_of("rsscn7"), "train")
    adapter.files[0].unlink()
    os.mkfifo(adapter.files[0])
    with pytest.raises(ArchiveError, match=r"a001\.jpg is no regular file"):
        adapter.scene(0)
    adapter.files[1].unlink()
    monkeypatch.chdir(adapter.files[1].parent)  # an address has at most 108 bytes
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(adapter.files[1].name)
        with pytest.raises(ArchiveError, match=r"a002\.jpg is no regular file"):
            adapter.scene(1)
    adapter.files[2].unlink()
    adapter.files[2].mkdir()
    with pytest.raises(ArchiveError, match=r"a003\.jpg is no regular file"):
        adapter.scene(2)


def test_a_link_to_itself_is_refused(sketch_of: Copy) -> None:
    adapter = RSSCN7Adapter(sketch_of("rsscn7"), "train")
    path = adapter.files[0]
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(ArchiveError, match=r"a001\.jpg cannot be read .* mend the link"):
        adapter.scene(0)


def test_a_file_without_permission_is_not_fetched_again(
    sketch_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = RSSCN7Adapter(sketch_of("rsscn7"), "train")

    def refuse(path: Path, *_: Any, **__: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ArchiveError, match=r"Permission denied.*; give your") as error:
        adapter.scene(0)
    assert "fetch" not in str(error.value)


def test_a_folder_without_permission_is_named(
    sketch_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = sketch_of("rsscn7")
    listed = Path.iterdir

    def refuse(path: Path) -> Any:
        if path.name == "cIndustry":
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(ArchiveError, match=r"cIndustry cannot be read .*give yourself"):
        RSSCN7Adapter(root, "train")


# Bombs: small files with many pixels.

PEAK = """
import resource, sys
from pathlib import Path
from rscl_bench.archives.ucmerced import UCMercedAdapter
from rscl_bench.errors import ArchiveError
adapter = UCMercedAdapter(Path(sys.argv[1]), "train")
adapter.scene(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    adapter.scene(0)
except ArchiveError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_a_tiff_of_20000_by_20000_pixels_is_refused_without_being_decoded(sketch_of: Copy) -> None:
    root = sketch_of("ucmerced")
    path = UCMercedAdapter(root, "train").files[0]
    path.unlink()
    side = 20_000
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 3, "dtype": "uint8"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile, compress="deflate", sparse_ok=True, tiled=True):
            pass
    assert path.stat().st_size < 1 << 20
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(root)], capture_output=True, text=True, check=True
    )
    message, mebibytes = done.stdout.splitlines()
    assert f"{path} has 20000×20000 pixels, more than the {MAX_PIXELS:,}" in message
    assert int(mebibytes) < 30


def test_a_png_bomb_is_refused_by_its_size(sketch_of: Copy) -> None:
    adapter = UAVidAdapter(sketch_of("uavid"), "val")
    adapter.files[0].unlink()
    png(adapter.files[0], np.zeros((1, 1, 3)), depth=8)
    content = bytearray(adapter.files[0].read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    adapter.files[0].write_bytes(content)
    with pytest.raises(ArchiveError, match="has 60000×60000 pixels, more than"):
        adapter.scene(0)


def test_the_largest_image_is_the_dataset_s_declaration(
    sketch_of: Copy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(UCMercedAdapter, "max_pixels", 100)
    adapter = UCMercedAdapter(sketch_of("ucmerced"), "train")
    rewrite(adapter.files[0], noise(10, 10, 3))
    assert adapter.scene(0).image.shape == (10, 10, 3)
    rewrite(adapter.files[0], noise(10, 11, 3))
    with pytest.raises(
        ArchiveError, match=r"has 11×10 pixels, more than the 100 .* the dataset's max_p"
    ):
        adapter.scene(0)


def test_bands_are_counted_before_pixels_are_decoded(tmp_path: Path) -> None:
    write_tiff(tmp_path / "x.tif", noise(2, 2, 100))
    with pytest.raises(ArchiveError, match="has 100 bands, more than the 64"):
        read_tiff(tmp_path / "x.tif")


# Switches of libraries that other code has set.


@pytest.fixture
def loose(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set all switches as the file of some dataset may do."""
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    monkeypatch.setenv("GTIFF_IGNORE_READ_ERRORS", "YES")
    monkeypatch.setenv("CONVERT_YCBCR_TO_RGB", "NO")


@pytest.mark.usefixtures("loose")
@pytest.mark.parametrize("cls", [AIDAdapter, UAVidAdapter, UCMercedAdapter])
def test_a_switch_of_a_library_changes_nothing(
    sketches: Path, sketch_of: Copy, cls: type[AIDAdapter]
) -> None:
    with pytest.MonkeyPatch.context() as strict:
        strict.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", False)
        strict.setattr(Image, "MAX_IMAGE_PIXELS", None)
        strict.delenv("CONVERT_YCBCR_TO_RGB")
        right = cls(sketches, "train").scene(0).image
    adapter = cls(sketch_of(cls.folder), "train")
    assert np.array_equal(adapter.scene(0).image, right)
    content = adapter.files[0].read_bytes()
    adapter.files[0].unlink()
    adapter.files[0].write_bytes(content[: len(content) // 2])
    with pytest.raises(ArchiveError, match="cannot be read"):
        adapter.scene(0)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    assert Image.MAX_IMAGE_PIXELS == 10


def test_files_beside_an_image_change_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    write_tiff(path, noise(8, 8, 3))
    (tmp_path / "x.tif.aux.xml").write_text(
        '<PAMDataset><PAMRasterBand band="1"><NoDataValue>7</NoDataValue></PAMRasterBand>'
        "</PAMDataset>"
    )
    assert np.array_equal(read_tiff(path), noise(8, 8, 3))
