"""US3D: splits, cities, masks, and the MSI files that tifffile wrote."""

import json
import shutil
import struct
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from helpers.archives import allow_missing_files
from helpers.images import rewrite
from numpy.typing import NDArray

from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.us3d import US3DAdapter, split_of
from rscl_bench.errors import ArchiveError, SpecError

Copy = Callable[[str], Path]


def test_splits_share_no_location(sketches: Path) -> None:
    names = {
        split: {path.name[:7] for path in US3DAdapter(sketches, split).files}
        for split in US3DAdapter.splits
    }
    assert not names["train"] & names["val"]
    held_out = sum(split_of(f"JAX_{i:03d}") == "val" for i in range(800))
    assert 70 < held_out < 130
    assert split_of("JAX_004") == split_of("JAX_004")


def test_cities(sketch_of: Copy) -> None:
    root = sketch_of("us3d")
    with pytest.raises(ArchiveError, match="holds no image"):
        US3DAdapter(root, "train", {"cities": ["OMA"]})
    with pytest.raises(SpecError, match="'cities"):
        US3DAdapter(root, "train", {"cities": ["NYC"]})


def test_needs_masks_only_for_labels(sketch_of: Copy) -> None:
    root = sketch_of("us3d")
    shutil.rmtree(root / "us3d" / "Track1-Truth")
    allow_missing_files(root / "us3d")
    adapter = US3DAdapter(root, "train")
    assert adapter.inputs() == adapter.files
    adapter.scene(0)
    with pytest.raises(ArchiveError, match="Track1-Truth"):
        adapter.scene(0, with_labels=True)


def test_a_single_missing_mask_is_named(sketch_of: Copy) -> None:
    root = sketch_of("us3d")
    mask = US3DAdapter(root, "train").masks[1]
    assert mask is not None
    mask.unlink()
    allow_missing_files(root / "us3d")
    with pytest.raises(ArchiveError, match=f"{mask.name}, the mask of"):
        US3DAdapter(root, "train")


def test_real_archive_wants_every_image(sketch_of: Copy) -> None:
    root = sketch_of("us3d")
    (root / "us3d" / SKETCH_MARKER).unlink()
    with pytest.raises(ArchiveError, match=r"holds 8 files .* where there are 2783"):
        US3DAdapter(root, "train")


def test_unknown_code_is_refused(sketch_of: Copy) -> None:
    adapter = US3DAdapter(sketch_of("us3d"), "train")
    mask = adapter.masks[0]
    assert mask is not None
    rewrite(mask, np.full((1024, 1024, 1), 7, np.uint8))
    with pytest.raises(ArchiveError, match=r"codes \[7\]") as error:
        adapter.scene(0, with_labels=True)
    assert str(mask) in str(error.value)


def paged_tiff(pixels: NDArray[np.uint16]) -> bytes:
    """Return ``[H, W, 8]`` as tifffile writes it: H pages of W × 8, all data after the first."""
    pages, rows, columns = pixels.shape
    text = (json.dumps({"shape": list(pixels.shape)}) + "\0").encode()
    page_bytes = rows * columns * 2
    entries = 10
    directory = 2 + 12 * entries + 4
    text_at = 8 + directory
    data_at = (text_at + len(text) + 15) // 16 * 16
    rest_at = data_at + pages * page_bytes
    out = bytearray(b"II*\0" + struct.pack("<I", 8))
    for page in range(pages):
        at = rest_at + (page - 1) * directory if page else 8
        following = rest_at + page * directory if page + 1 < pages else 0
        tags = [
            (256, 4, 1, columns),
            (257, 4, 1, rows),
            (258, 3, 1, 16),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (270, 2, len(text), text_at),
            (273, 4, 1, data_at + page * page_bytes),
            (277, 3, 1, 1),
            (278, 4, 1, rows),
            (279, 4, 1, page_bytes),
        ]
        assert len(out) == at
        out += struct.pack("<H", entries)
        out += b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", following)
        if page == 0:
            out += text
            out += b"\0" * (data_at - len(out)) + pixels.astype("<u2").tobytes()
    return bytes(out)


def test_reads_what_tifffile_wrote(sketch_of: Copy) -> None:
    adapter = US3DAdapter(sketch_of("us3d"), "train")
    pixels = np.random.default_rng(0).integers(0, 2048, (40, 24, 8)).astype(np.uint16)
    content = paged_tiff(pixels)
    path = adapter.files[0]
    path.unlink()
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            assert (file.count, file.width) == (1, 8), "GDAL misreads these files"
    assert np.array_equal(adapter.scene(0).image, pixels)
    for keep in (0.5, 0.9, 0.999):
        path.write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(ArchiveError, match="cannot be read"):
            adapter.scene(0)
