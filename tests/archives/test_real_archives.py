"""Real archives in the data root, where RSCL_DATA_ROOT names one."""

import math
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from helpers.real import real_adapter, real_splits
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from rscl_bench.archives import rs4_proxy
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.aid import AIDAdapter
from rscl_bench.archives.hit_uav import HITUAVAdapter
from rscl_bench.archives.hurricane_damage import HurricaneDamageAdapter, coordinates
from rscl_bench.archives.mstar import MSTARAdapter
from rscl_bench.archives.rsscn7 import RSSCN7Adapter
from rscl_bench.archives.ucmerced import UCMercedAdapter


def labels_of(adapter: DatasetAdapter) -> NDArray[np.uint8]:
    """Return the labels of all images, ``[n, L]``."""
    labels = [adapter.scene(index, with_labels=True).labels for index in range(len(adapter))]
    assert all(of_image is not None for of_image in labels)
    return np.array(labels, np.uint8)


def test_real_ucmerced() -> None:
    splits = real_splits(UCMercedAdapter)
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


def test_real_aid() -> None:
    adapter = real_adapter(AIDAdapter, "train")
    if len(adapter) not in (4020, 10_000):
        pytest.fail(f"AID has {len(adapter)} images, neither 4,020 nor 10,000")
    assert adapter.scene(0).image.ndim == 3
    scenes = {
        split: real_adapter(AIDAdapter, f"scenes-{split}") for split in ("train", "val", "test")
    }
    read = [path for part in scenes.values() for path in part.files]
    assert len(set(read)) == len(read)
    assert set(read) < set(adapter.files)
    if len(adapter) == 4020:
        assert {split: len(part) for split, part in scenes.items()} == {
            "train": 30 * 80,
            "val": 30 * 17,
            "test": 30 * 31,
        }


def test_real_rsscn7() -> None:
    adapter = real_adapter(RSSCN7Adapter, "train")
    assert len(adapter) == 2800
    assert adapter.scene(2799).image.ndim == 3


def test_real_hurricane_damage() -> None:
    splits = real_splits(HurricaneDamageAdapter)
    whole = sum(len(splits[f"official-{role}"]) for role in ("train", "val", "test"))
    by_place = {role: splits[role] for role in ("train", "val", "test")}
    assert 0.8 * whole < sum(map(len, by_place.values())) < whole
    for adapter in by_place.values():
        labels = labels_of(adapter)
        assert (labels.sum(axis=1) == 1).all()
        if whole == 1800:
            assert abs(labels[:, 0].mean() - 0.5) < 0.01
    for one, other in combinations(by_place.values(), 2):
        near = cKDTree(metres(one.files)).query_ball_tree(cKDTree(metres(other.files)), r=190)
        assert not any(near)


def metres(files: list[Path]) -> NDArray[np.float64]:
    """Return east and north of chips, ``[n, 2]``; a degree of longitude is that of 31°."""
    degrees = np.array([coordinates(path) for path in files]) / 1e6
    metres_of_a_degree = 111_200.0
    return degrees * (metres_of_a_degree * math.cos(math.radians(31)), metres_of_a_degree)


def test_real_hit_uav() -> None:
    splits = real_splits(HITUAVAdapter)
    by_flight, official = (
        [{path.stem for path in splits[prefix + role].files} for role in ("train", "val", "test")]
        for prefix in ("", "official-")
    )
    assert set.union(*by_flight) < set.union(*official)
    assert sum(map(len, by_flight)) == len(set.union(*by_flight))
    assert all(number_of(name) < 727 for name in set.union(*official) - set.union(*by_flight))
    flight_of = flights(sorted(set.union(*official), key=number_of))
    for one, other in combinations(by_flight, 2):
        assert not {flight_of[name] for name in one} & {flight_of[name] for name in other}
    # The published lists were drawn from all frames: every flight is in both.
    assert {flight_of[n] for n in official[2]} <= {flight_of[n] for n in official[0]}
    for role in ("train", "val", "test"):
        adapter = splits[role]
        labels = labels_of(adapter)
        assert (labels.sum(axis=0) > 10).all(), f"{role} has too few positives of some class"


def number_of(name: str) -> int:
    return int(name.rsplit("_", 1)[1])


def flights(names: list[str]) -> dict[str, int]:
    """Return the flight of frames in number order: the angle rises within one of equal height."""
    flight_of, flight, before = {}, 0, ("", 0)
    for name in names:
        time, height, angle, *_ = name.split("_")
        if (f"{time}_{height}" != before[0]) or int(angle) < before[1]:
            flight += 1
        flight_of[name], before = flight, (f"{time}_{height}", int(angle))
    return flight_of


def test_real_mstar() -> None:
    splits = real_splits(MSTARAdapter)
    files = {role: set(splits[role].files) for role in MSTARAdapter.splits}
    assert not files["train"] & files["val"]
    assert files["train"] | files["val"] < files["official-train"]
    assert {path.parts[-3] for path in files["test"]} == {"val"}
    for role, adapter in splits.items():
        labels = labels_of(adapter)
        counts = labels.sum(axis=0)
        assert counts.sum() == len(adapter)
        assert counts.min() > 0.6 * counts.max(), f"{role} has few chips of some class"


@pytest.mark.parametrize(
    ("cls", "tiles"),
    [
        (rs4_proxy.SatelliteCityAdapter, {"train": 2478, "val": 225, "test": 432}),
        (rs4_proxy.DroneAdapter, {"train": 505}),
        (rs4_proxy.AerialTownAdapter, {"train": 2464}),
        (rs4_proxy.ForestAdapter, {"train": 1464}),
    ],
)
def test_real_rs4_proxy(cls: type[rs4_proxy.PlacesAdapter], tiles: dict[str, int]) -> None:
    splits = real_splits(cls)
    places = [{path.parent for path in adapter.files} for adapter in splits.values()]
    assert len(set.union(*places)) == sum(map(len, places))
    for split, adapter in splits.items():
        sides = [adapter.scene(index).image.shape[:2] for index in range(len(adapter))]
        assert sum((height // 128) * (width // 128) for height, width in sides) == tiles[split]
        if cls.classes:
            masks = [adapter.scene(i, with_labels=True).mask for i in range(len(adapter))]
            found = {int(c) for mask in masks if mask is not None for c in np.unique(mask)}
            # Area 4 has no pixel of the sixth class, `unlabelled`.
            assert set(range(5 if split == "test" else 6)) <= found <= {*range(6), 255}
