"""`near_copies` finds shifted views of one ground; real splits hold none."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.real import real_adapter
from scipy.ndimage import gaussian_filter

from rscl_bench import sensors
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.aid import AIDAdapter
from rscl_bench.archives.files import write_picture
from rscl_bench.archives.hit_uav import HITUAVAdapter
from rscl_bench.archives.hurricane_damage import HurricaneDamageAdapter
from rscl_bench.archives.mstar import MSTARAdapter
from rscl_bench.testing.near_copies import near_copies


class Crops(DatasetAdapter):
    """Crops of random textures: the number of a file is that of its ground."""

    name = folder = "crops"
    title = source = licence = layout = "crops"
    sensor = sensors.RGB8
    splits = ("one", "other")

    def _list_files(self) -> list[Path]:
        return sorted((self.root / self.split).glob("*.png"))

    def _read(self, index: int, with_labels: bool) -> Scene:
        return Scene(self.read_image(self.files[index]))


def crop(root: Path, split: str, ground: int, shift: int) -> None:
    """Write a crop of a ground: 80 of its 120 pixels a side, brighter the more it is shifted."""
    noise = np.random.default_rng(ground).normal(size=(120, 120, 1)).astype(np.float32)
    texture = gaussian_filter(noise, (2.0, 2.0, 0.0))
    grey = 120 + shift + 200 * texture[shift : shift + 80, shift : shift + 80]
    pixels = np.clip(grey, 0, 255).astype(np.uint8).repeat(3, axis=2)
    write_picture(root / "crops" / split / f"{ground}.png", pixels)


def test_shifted_views_of_one_ground_are_found(tmp_path: Path) -> None:
    for ground, shift in ((0, 0), (1, 0), (2, 0)):
        crop(tmp_path, "one", ground, shift)
    for ground, shift in ((1, 20), (2, 0), (3, 0)):
        crop(tmp_path, "other", ground, shift)
    one, other = Crops(tmp_path, "one"), Crops(tmp_path, "other")
    found = near_copies(one, other, threshold=0.6)
    assert [(p.first.stem, p.second.stem) for p in found] == [("2", "2"), ("1", "1")]
    assert found[0].similarity == pytest.approx(1, abs=0.01)
    assert 0.75 < found[1].similarity < 1
    assert len(near_copies(one, other, threshold=-1.0)) == 9
    alone = near_copies(one, other, threshold=-1.0, group=lambda path: path.stem)
    assert [p.first.stem for p in alone] == ["2", "1"]


def by_class(path: Path) -> str:
    return path.parent.name


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "threshold", "group"),
    [
        (HITUAVAdapter, 0.75, lambda _: ""),
        (HurricaneDamageAdapter, 0.85, lambda _: ""),
        (AIDAdapter, 0.8, by_class),
    ],
)
def test_no_near_copy_is_in_two_splits(
    cls: type[DatasetAdapter], threshold: float, group: Callable[[Path], str]
) -> None:
    prefix = "scenes-" if cls is AIDAdapter else ""
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        first, second = (real_adapter(cls, prefix + role) for role in (one, other))
        assert near_copies(first, second, threshold, group) == []


@pytest.mark.slow
def test_validation_chips_of_mstar_show_a_side_that_no_training_chip_shows() -> None:
    """Chips of one side are alike up to 0.92 between the two depression angles, by design."""
    train, val = real_adapter(MSTARAdapter, "train"), real_adapter(MSTARAdapter, "val")
    assert near_copies(train, val, 0.85, by_class) == []
    test = real_adapter(MSTARAdapter, "test")
    assert near_copies(val, test, 0.85, by_class) != []


@pytest.mark.slow
def test_the_published_split_of_hit_uav_holds_near_copies() -> None:
    train = real_adapter(HITUAVAdapter, "official-train")
    test = real_adapter(HITUAVAdapter, "official-test")
    found = near_copies(train, test, threshold=0.75)
    assert len({pair.second for pair in found}) > len(test) / 2
