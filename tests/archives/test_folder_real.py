"""The dataset `folder` reads real archives as their own adapters and other libraries read them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import rasterio
from PIL import Image

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.lookup import adapter_class


def opened(split: str, options: Mapping[str, Any]) -> DatasetAdapter:
    """Open a real folder below RSCL_DATA_ROOT, or skip the test."""
    data = os.environ.get("RSCL_DATA_ROOT")
    if not data or not (Path(data) / options["root"]).is_dir():
        pytest.skip(f"RSCL_DATA_ROOT names no folder with {options['root']}")
    return adapter_class("folder", options)(Path(data), split, options)


@pytest.mark.parametrize(("time", "count"), [("day", 371), ("night", 829)])
def test_thermal_frames_have_the_labels_of_their_table(time: str, count: int) -> None:
    objects = ["Person", "Car", "Bicycle", "OtherVehicle"]
    adapter = opened(
        "train",
        {
            "root": "hit_uav",
            "pattern": "normal_xml/JPEGImages/*.jpg",
            "sensor": "thermal8",
            "table": "attributes.csv",
            "select": {"time": [time]},
            "labels": {"by": "columns", "columns": objects},
            "splits": {"by": "column", "column": "split"},
        },
    )
    frame = pd.read_csv(adapter.root / "attributes.csv")
    frame = frame[(frame.time == time) & (frame.split == "train")].set_index("name").sort_index()
    assert [path.stem for path in adapter.files] == list(frame.index)
    assert len(adapter) == count
    for index in range(0, count, 50):
        scene = adapter.scene(index, with_labels=True)
        assert np.array_equal(scene.image[:, :, 0], np.asarray(Image.open(adapter.files[index])))
        assert scene.labels is not None
        assert scene.labels.tolist() == (frame.iloc[index][objects] > 0).astype(int).tolist()


def test_masks_of_roads_are_parted_at_the_threshold() -> None:
    path = "groundtruth/{stem}.png"
    adapter = opened(
        "all",
        {
            "root": "epfl_roads/training",
            "pattern": "images/*",
            "sensor": "rgb8",
            "labels": {"by": "mask", "path": path, "classes": ["road"], "threshold": 128},
        },
    )
    assert len(adapter) == 100
    for index in range(0, 100, 20):
        raw = np.asarray(Image.open(adapter.root / path.format(stem=adapter.files[index].stem)))
        mask = adapter.scene(index, with_labels=True).mask
        assert mask is not None
        assert np.array_equal(mask == 0, raw >= 128)
        assert set(np.unique(mask)) <= {0, 255}


def test_chips_of_twelve_bands_are_split_by_their_place() -> None:
    options: dict[str, Any] = {
        "root": "s2_chips",
        "pattern": "ms/*.tif",
        "sensor": "sentinel2-l2a",
        "table": "chips.csv",
        "select": {"has_ms": ["1"]},
        "labels": {"by": "column", "column": "derived_class"},
    }
    shares = {"train": 0.6, "test": 0.4}
    options["splits"] = {"by": "hash", "shares": shares, "column": "place", "key": "1"}
    parts = {split: opened(split, options) for split in shares}
    frame = pd.read_csv(parts["train"].root / "chips.csv").set_index("name")
    places = {s: {frame.place[p.stem] for p in a.files} for s, a in parts.items()}
    assert not places["train"] & places["test"]
    assert sum(map(len, parts.values())) == (frame.has_ms == 1).sum() == 259
    adapter = parts["test"]
    for index in range(len(adapter)):
        scene, name = adapter.scene(index, with_labels=True), adapter.files[index].stem
        assert scene.labels is not None
        assert adapter.classes[scene.labels.argmax()] == frame.derived_class[name]
    with rasterio.open(adapter.files[0]) as file:
        assert np.array_equal(adapter.scene(0).image, np.moveaxis(file.read(), 0, 2))
