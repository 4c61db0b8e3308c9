"""AID and RSSCN7: classes, order and completeness."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.aid import AIDAdapter
from rscl_bench.archives.rsscn7 import RSSCN7Adapter
from rscl_bench.errors import ArchiveError, SpecError

Copy = Callable[[str], Path]


def test_aid_classes_option(sketches: Path) -> None:
    adapter = AIDAdapter(sketches, "train", {"classes": ["Pond", "Airport"]})
    assert [path.parent.name for path in adapter.files] == ["Airport"] * 8 + ["Pond"] * 8
    label = adapter.scene(8, with_labels=True).labels
    assert label is not None
    assert label.sum() == 1
    assert label[AIDAdapter.classes.index("Pond")] == 1
    with pytest.raises(SpecError, match="did you mean 'Airport'"):
        AIDAdapter(sketches, "train", {"classes": ["Airprot"]})
    with pytest.raises(SpecError, match="classes"):
        AIDAdapter(sketches, "train", {"classes": []})


def test_aid_is_in_number_order_and_without_gap(sketch_of: Copy) -> None:
    root = sketch_of("aid")
    adapter = AIDAdapter(root, "train", {"classes": ["Airport"]})
    assert [path.name for path in adapter.files] == [f"airport_{i}.jpg" for i in range(1, 9)]
    (root / "aid" / SKETCH_MARKER).unlink()
    adapter.files[3].unlink()
    with pytest.raises(ArchiveError, match=r"airport_4\.jpg does not exist"):
        AIDAdapter(root, "train")


def test_rsscn7_real_archive_wants_every_image(sketch_of: Copy) -> None:
    root = sketch_of("rsscn7")
    (root / "rsscn7" / SKETCH_MARKER).unlink()
    with pytest.raises(ArchiveError, match=r"a013\.jpg and 387 more files do not exist"):
        RSSCN7Adapter(root, "train")
