"""Items of TorchGeo datasets: by patterns of their files, by dealt splits, and by number."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rscl_bench.archives.lookup import adapter_class
from rscl_bench.archives.torchgeo.options import TorchGeoOptions
from rscl_bench.archives.torchgeo.selection import chosen_items
from rscl_bench.errors import ArchiveError, RsclError, SpecError

PATHS = [f"train/{event}_{number:04d}.png" for event in ("fire", "flood") for number in range(500)]
SHARES = {"train": 0.6, "val": 0.1, "test": 0.3}


def chosen(split: str = "train", paths: list[str] = PATHS, **options: Any) -> list[str]:
    indices = chosen_items(paths, split, TorchGeoOptions(**options), "Pictures")
    assert indices == sorted(indices)
    return [paths[index] for index in indices]


def dealt(shares: Mapping[str, float] = SHARES, **rest: Any) -> dict[str, Any]:
    return {"splits": {"shares": dict(shares), **rest}}


def test_without_options_all_items_are_read() -> None:
    assert chosen() == PATHS


def test_dealt_splits_have_every_item_once_and_their_shares() -> None:
    parts = {split: chosen(split, **dealt()) for split in SHARES}
    assert sorted([path for part in parts.values() for path in part]) == PATHS
    for split, share in SHARES.items():
        # Five standard deviations of a binomial count.
        spread = 5 * (share * (1 - share) * len(PATHS)) ** 0.5
        assert len(parts[split]) == pytest.approx(share * len(PATHS), abs=spread)


def test_order_of_the_shares_changes_nothing() -> None:
    backwards = dict(reversed(SHARES.items()))
    assert chosen("val", **dealt()) == chosen("val", **dealt(backwards))


def test_another_key_deals_other_items() -> None:
    assert chosen(**dealt(key="a")) != chosen(**dealt(key="b"))


def test_further_items_move_no_item() -> None:
    further = [f"train/storm_{number}.png" for number in range(50)]
    assert set(chosen(**dealt())) <= set(chosen(paths=[*further, *PATHS], **dealt()))


def test_a_limit_takes_a_part_that_grows_with_it() -> None:
    few, more = chosen(at_most=100), chosen(at_most=200)
    assert (len(few), len(more)) == (100, 200)
    assert set(few) < set(more)
    assert chosen(at_most=len(PATHS)) == PATHS
    # Not the first ones: both events have about half.
    assert 30 < sum("fire" in path for path in few) < 70


def test_limit_holds_for_the_split() -> None:
    assert set(chosen(at_most=50, **dealt())) < set(chosen(**dealt()))


def test_patterns_choose_items() -> None:
    assert chosen(only=["*/fire_*"]) == PATHS[:500]
    assert chosen(without=["*/fire_*"]) == PATHS[500:]
    assert chosen(only=["*_0001.png", "*/fire_0002*"], without=["*flood*"]) == PATHS[1:3]


@pytest.mark.parametrize("option", ["only", "without"])
def test_a_pattern_that_fits_nothing_is_refused(option: str) -> None:
    with pytest.raises(ArchiveError, match=rf"'\*/quake_\*' of options.{option}.*fire_0000.png"):
        chosen("train", PATHS, **{option: ["*/fire_*", "*/quake_*"]})


def test_patterns_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ArchiveError, match="leave no item of Pictures"):
        chosen(without=["*"])


def test_items_of_one_file_are_drawn_apart_and_dealt_together() -> None:
    windows = [f"raster_{number // 100}" for number in range(400)]
    drawn = [path for path in chosen(paths=windows, at_most=200) if path == "raster_0"]
    assert 20 < len(drawn) < 80
    parts = [set(chosen(split, windows, **dealt())) for split in SHARES]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 4


def test_a_class_with_splits_has_to_say_which_is_dealt() -> None:
    with pytest.raises(
        SpecError,
        match=r"has splits of its own .train, val.; leave out options.splits, or say in splits\.of",
    ):
        adapter_class("torchgeo:FireRisk", dealt())
    with pytest.raises(RsclError, match=r"splits\.of: 'vall'"):
        adapter_class("torchgeo:FireRisk", dealt(of="vall"))
    assert adapter_class("torchgeo:FireRisk", dealt(of="val")).splits == tuple(sorted(SHARES))


def test_a_class_without_splits_deals_all() -> None:
    adapter = adapter_class("torchgeo:PatternNet", dealt())
    assert adapter.splits == tuple(sorted(SHARES))
    with pytest.raises(RsclError, match=r"splits\.of: 'train'"):
        adapter_class("torchgeo:PatternNet", dealt(of="train"))


def test_an_unchosen_file_is_no_input(tmp_path: Path) -> None:
    options = {**dealt(), "at_most": 20}
    adapter = adapter_class("torchgeo:PatternNet", options)
    adapter.write_sketch(tmp_path, np.random.default_rng(0))
    train, test = (adapter(tmp_path, split, options) for split in ("train", "test"))
    assert len(train) == len(test) == 20
    assert train.inputs() == train.files
    assert not set(train.inputs()) & set(test.inputs())
    assert train.scene(0, with_labels=True).labels is not None
