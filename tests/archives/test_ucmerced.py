"""UC Merced: the stored split, and the table of labels."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.images import rewrite

from rscl_bench.archives import ucmerced
from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.ucmerced import LABEL_FILE, UCMercedAdapter
from rscl_bench.errors import ArchiveError

Copy = Callable[[str], Path]


def test_stored_split_regenerates() -> None:
    with ucmerced.SPLIT_FILE.open(newline="") as file:
        rows = [(row["name"], row["split"]) for row in csv.DictReader(file)]
    assert rows == ucmerced.generate_split()
    assert [name for name, _ in rows] == sorted(name for name, _ in rows)
    splits = [split for _, split in rows]
    assert {s: splits.count(s) for s in set(splits)} == {"train": 1000, "val": 300, "test": 800}


def test_keeps_the_true_size(sketch_of: Copy) -> None:
    adapter = UCMercedAdapter(sketch_of("ucmerced"), "train")
    rewrite(adapter.files[0], np.ones((247, 253, 3), np.uint8))
    assert adapter.scene(0).image.shape == (247, 253, 3)


def test_real_archive_wants_every_image(sketch_of: Copy) -> None:
    root = sketch_of("ucmerced")
    (root / "ucmerced" / SKETCH_MARKER).unlink()
    with pytest.raises(ArchiveError, match="has no row for agricultural"):
        UCMercedAdapter(root, "val")


@pytest.mark.parametrize(
    ("old", "new"), [("airplane\t", "aeroplane\t"), ("\t1\n", "\t2\n"), ("\t1\n", "\n")]
)
def test_bad_table_is_refused(sketch_of: Copy, old: str, new: str) -> None:
    root = sketch_of("ucmerced")
    table = root / "ucmerced" / LABEL_FILE
    text = table.read_text()
    table.unlink()
    table.write_text(text.replace(old, new, 1))
    with pytest.raises(ArchiveError, match=r"LandUse_Multilabeled\.txt has"):
        UCMercedAdapter(root, "train")
