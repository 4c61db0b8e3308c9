"""Real archives in the data root, where RSCL_DATA_ROOT names one."""

import os
from pathlib import Path

import numpy as np
import pytest

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.aid import AIDAdapter
from rscl_bench.archives.rsscn7 import RSSCN7Adapter
from rscl_bench.archives.ucmerced import UCMercedAdapter


@pytest.fixture(scope="module")
def real() -> Path:
    value = os.environ.get("RSCL_DATA_ROOT")
    if not value:
        pytest.skip("RSCL_DATA_ROOT is not set: no real archives to read")
    return Path(value)


def real_adapter(root: Path, cls: type[DatasetAdapter], split: str) -> DatasetAdapter:
    if not (root / cls.folder).is_dir():
        pytest.skip(f"RSCL_DATA_ROOT has no folder {cls.folder}")
    return cls(root, split)


def test_real_ucmerced(real: Path) -> None:
    splits = {s: real_adapter(real, UCMercedAdapter, s) for s in UCMercedAdapter.splits}
    assert {s: len(a) for s, a in splits.items()} == {"train": 1000, "val": 300, "test": 800}
    assert len({path for a in splits.values() for path in a.files}) == 2100
    assert not splits["train"].is_sketch
    positives = {}
    for split, adapter in splits.items():
        assert isinstance(adapter, UCMercedAdapter)
        labels = np.stack([adapter.labels[path.stem] for path in adapter.files])
        positives[split] = labels.sum(axis=0)
        assert (positives[split] > 0).all(), f"{split} has no positive of some label"
    total = np.sum(list(positives.values()), axis=0)
    # As counted in the public table of labels, in the order of the classes.
    counts = [100, 718, 691, 886, 115, 105, 100, 103, 975, 102, 1300, 294, 100, 102, 100, 1009, 203]
    assert total.tolist() == counts
    scene = splits["test"].scene(0, with_labels=True)
    assert scene.image.shape[2] == 3


def test_real_aid(real: Path) -> None:
    adapter = real_adapter(real, AIDAdapter, "train")
    if len(adapter) not in (4020, 10_000):
        pytest.fail(f"AID has {len(adapter)} images, neither 4,020 nor 10,000")
    assert adapter.scene(0).image.ndim == 3


def test_real_rsscn7(real: Path) -> None:
    adapter = real_adapter(real, RSSCN7Adapter, "train")
    assert len(adapter) == 2800
    assert adapter.scene(2799).image.ndim == 3
