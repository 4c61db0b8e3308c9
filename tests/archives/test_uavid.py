"""UAVid: mask colours, sequences, and the tile counts of the CoSMAE paper."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import allow_missing_files
from helpers.images import rewrite

from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.uavid import COLOURS, FRAMES, SEQUENCES, UAVidAdapter
from rscl_bench.errors import ArchiveError, SpecError

Copy = Callable[[str], Path]


def test_tiling_arithmetic() -> None:
    small, large = (2160 // 256) * (3840 // 256), (2160 // 256) * (4096 // 256)
    assert (small, large) == (120, 128)
    assert 130 * small + 70 * large == 24_560
    assert 40 * small + 30 * large == 8_640
    assert SEQUENCES["train"] * len(FRAMES) == 130 + 70
    assert SEQUENCES["val"] * len(FRAMES) == 40 + 30


def test_colours_are_decoded(sketch_of: Copy) -> None:
    adapter = UAVidAdapter(sketch_of("uavid"), "val")
    colours = np.array([list(COLOURS.values())], np.uint8).repeat(4, axis=0)
    rewrite(adapter.files[0], np.zeros((4, 8, 3), np.uint8))
    rewrite(adapter.masks[0], colours)
    mask = adapter.scene(0, with_labels=True).mask
    assert mask is not None
    assert mask[0].tolist() == list(range(8))


def test_unknown_colour_is_refused(sketch_of: Copy) -> None:
    adapter = UAVidAdapter(sketch_of("uavid"), "val")
    mask = adapter.masks[0]
    colours = np.zeros((768, 1024, 3), np.uint8)
    colours[5, 7] = (1, 2, 3)
    rewrite(mask, colours)
    with pytest.raises(ArchiveError, match=r"\(1, 2, 3\) at row 5, column 7") as error:
        adapter.scene(0, with_labels=True)
    assert str(mask) in str(error.value)


def test_test_labels_are_not_public(sketches: Path) -> None:
    with pytest.raises(SpecError, match="use 'val'"):
        UAVidAdapter(sketches, "test").scene(0, with_labels=True)


def test_sequences_are_in_number_order(sketches: Path, sketch_of: Copy) -> None:
    root = sketch_of("uavid") / "uavid"
    folder = root / "uavid_train"
    (folder / "seq4").rename(folder / "seq10")
    allow_missing_files(root)
    names = [path.parts[-3] for path in UAVidAdapter(root.parent, "train").files]
    assert list(dict.fromkeys(names)) == ["seq1", "seq2", "seq3", "seq10"]
    (root / SKETCH_MARKER).unlink()
    with pytest.raises(ArchiveError, match=r"000200\.png and \d+ more files do not exist"):
        UAVidAdapter(root.parent, "train")
