"""TreeSatAI: equal to TorchGeo's reader, splits, and the file of labels."""

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import rasterio
from torchgeo.datasets import TreeSatAI

from rscl_bench.archives import treesatai
from rscl_bench.archives.adapter import SKETCH_MARKER
from rscl_bench.archives.treesatai import TreeSatAIAdapter
from rscl_bench.errors import ArchiveError

Copy = Callable[[str], Path]


def test_equals_torchgeo(sketches: Path) -> None:
    ours = TreeSatAIAdapter(sketches, "train")
    theirs = TreeSatAI(str(sketches / "treesatai"), "train", sensors=("aerial",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        sample = theirs[7]
    scene = ours.scene(7, with_labels=True)
    assert np.array_equal(scene.image, np.moveaxis(sample["image_aerial"].numpy(), 0, 2))
    assert scene.labels is not None
    assert np.array_equal(scene.labels, sample["label"].numpy())


def test_paper_splits(sketch_of: Copy) -> None:
    root = sketch_of("treesatai")
    first = {s: TreeSatAIAdapter(root, s).files for s in ("paper-train", "paper-val", "train")}
    assert not set(first["paper-train"]) & set(first["paper-val"])
    assert set(first["paper-train"]) | set(first["paper-val"]) == set(first["train"])
    listing = root / "treesatai" / "train_filenames.lst"
    names = listing.read_text().split()
    listing.unlink()
    listing.write_text("\r\n".join(reversed(names)))
    assert TreeSatAIAdapter(root, "paper-val").files == first["paper-val"]


def test_real_paper_split_wants_its_count(sketch_of: Copy) -> None:
    root = sketch_of("treesatai")
    (root / "treesatai" / SKETCH_MARKER).unlink()
    with pytest.raises(ArchiveError, match=r"lists 112 files .* at least 16000"):
        TreeSatAIAdapter(root, "paper-val")


def test_paper_counts_of_a_full_list(sketches: Path) -> None:
    adapter = TreeSatAIAdapter(sketches, "train")
    names = [f"{i}.tif" for i in range(45_337)]
    chosen = {}
    for split in ("paper-train", "paper-val"):
        adapter.split = split
        adapter.root = Path("/nowhere")  # no marker: a real archive
        chosen[split] = adapter._paper_subset(names)
    assert {s: len(set(c)) for s, c in chosen.items()} == treesatai._PAPER_COUNTS
    assert not set(chosen["paper-train"]) & set(chosen["paper-val"])


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("{}", "no labels for"), ('{"%s": [["Palm", 1.0]]}', "'Palm'")],
)
def test_bad_labels_are_refused(sketch_of: Copy, content: str, message: str) -> None:
    root = sketch_of("treesatai")
    labels = root / "treesatai" / "labels" / "TreeSatBA_v9_60m_multi_labels.json"
    first = TreeSatAIAdapter(root, "train").files[0].name
    labels.unlink()
    labels.write_text(content.replace("%s", first))
    with pytest.raises(ArchiveError, match=message):
        TreeSatAIAdapter(root, "train")
