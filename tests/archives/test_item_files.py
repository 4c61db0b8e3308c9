"""Which files the items of a TorchGeo dataset are read from, found by reading three of them."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from rscl_bench.archives.torchgeo.item_files import ItemFiles, find

COUNT = 7


class Items:
    """A dataset that keeps something for each item, as TorchGeo's classes do."""

    def __init__(self, **kept: Any):
        self.__dict__.update(kept)

    def __len__(self) -> int:
        return COUNT


def write(root: Path, names: list[str]) -> list[Path]:
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    return paths


def found(
    dataset: Items, root: Path, files: Callable[[int], list[Path]], *common: Path
) -> ItemFiles:
    return find(dataset, root, common, lambda index: [*common, *files(index)])


STEMS = [f"P{7 * number:04d}" for number in range(COUNT)]


@pytest.mark.parametrize(
    "kept",
    [
        {"ids": STEMS},
        {"ids": [f"{stem}\n" for stem in STEMS]},
        {"rows": [{"stem": stem, "label": 0} for stem in STEMS]},
        {"pairs": [(f"images/{stem}.png", f"masks/{stem}.txt") for stem in STEMS]},
        {"table": pd.DataFrame({"name": [f"{stem}.jpg" for stem in STEMS], "fold": 1})},
        {"numbers": [7 * number for number in range(COUNT)]},
    ],
)
def test_files_follow_the_names_that_a_class_keeps(kept: dict[str, Any], tmp_path: Path) -> None:
    images = write(tmp_path, [f"images/{stem}.png" for stem in STEMS])
    masks = write(tmp_path, [f"masks/{stem}.txt" for stem in STEMS])
    (table,) = write(tmp_path, ["labels.csv"])
    items = found(Items(**kept), tmp_path, lambda i: [images[i], masks[i]], table)
    assert items.known
    assert items.by_item == list(zip(images, masks, strict=True))
    assert items.others == (table,)
    assert not items.foreign(2, [images[2], masks[2], table])
    assert items.foreign(2, [images[2], masks[3]]) == {masks[3]}


def test_whole_paths_are_taken_as_they_are(tmp_path: Path) -> None:
    images = write(tmp_path, [f"{'abc'[i % 3]}/{i * i}.png" for i in range(COUNT)])
    items = found(
        Items(samples=[(str(path), 0) for path in images]), tmp_path, lambda i: [images[i]]
    )
    assert items.known
    assert items.by_item == [(path,) for path in images]


def test_files_of_a_folder_for_each_item(tmp_path: Path) -> None:
    """One of several seasons is read; each item depends on all of its seasons."""
    seasons = [
        write(tmp_path, [f"{stem}/{number}{stem[-1]}/all.tif" for number in range(3)])
        for stem in STEMS
    ]
    items = found(Items(ids=STEMS), tmp_path, lambda i: [seasons[i][i % 3]])
    assert items.known
    assert items.by_item == [tuple(paths) for paths in seasons]


def test_one_file_that_is_opened_at_once_holds_all_items(tmp_path: Path) -> None:
    (path,) = write(tmp_path, ["all.h5"])
    items = found(Items(), tmp_path, lambda _: [], path)
    assert items.known
    assert items.by_item == [(path,)] * COUNT


def test_without_a_rule_every_file_counts(tmp_path: Path) -> None:
    """But those that are packed or hidden, which a user may delete."""
    images = write(tmp_path, [f"{sha256(bytes([i])).hexdigest()[:9]}.png" for i in range(COUNT)])
    write(tmp_path, ["images.zip", "part.tar.gz", ".DS_Store", ".cache/a.png"])
    (notes,) = write(tmp_path, ["notes.txt"])
    items = found(Items(), tmp_path, lambda i: [images[i]])
    assert not items.known
    assert set(items.others) == {*images, notes}
    assert not items.foreign(3, images)


def test_a_pattern_that_fails_for_one_item_is_no_rule(tmp_path: Path) -> None:
    images = write(tmp_path, [f"{stem}.png" for stem in STEMS])
    odd = write(tmp_path, ["other.png"])
    last = COUNT - 1
    items = found(Items(ids=STEMS), tmp_path, lambda i: odd if i == last else [images[i]])
    assert not items.known
