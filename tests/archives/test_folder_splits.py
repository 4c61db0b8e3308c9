"""Splits of a folder of images: disjoint, of whole groups, and stable when images are added."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.folders import names, opened, write, write_text
from hypothesis import given
from hypothesis import strategies as st

from rscl_bench.archives.folder.options import FolderOptions, HashSplits
from rscl_bench.archives.folder.splits import dealt, groups_of_images, split_of_images
from rscl_bench.archives.folder.tables import Tables
from rscl_bench.errors import ArchiveError
from rscl_bench.spec import validated

PLACES = st.sampled_from(["oslo", "bonn", "lima", "pune", "cairo", "quito", "Ōsaka"])
IMAGES = st.sets(
    st.builds(lambda place, day, n: f"{place}/{day}/{n}.png", PLACES, PLACES, st.integers(0, 30)),
    min_size=1,
    max_size=40,
)
SHARES = st.lists(st.integers(1, 9), min_size=1, max_size=4).map(
    lambda parts: {f"s{i}": part / sum(parts) for i, part in enumerate(parts)}
)
LEVELS = st.sampled_from([(), (1,), (2,), (1, 2), (-1,)])


def hashed(shares: dict[str, float], **more: Any) -> HashSplits:
    raw = {"by": "hash", "shares": shares, **more}
    return validated(HashSplits, raw, "splits")


def tables(images: set[str]) -> Tables:
    options = validated(FolderOptions, {"root": "frames", "sensor": "rgb8"}, "options")
    return Tables(Path("/root"), {image: Path(image) for image in sorted(images)}, options)


# Hashes.


@given(IMAGES, IMAGES, SHARES, LEVELS, st.text(max_size=5))
def test_images_that_are_added_move_no_other(
    first: set[str], more: set[str], shares: dict[str, float], levels: tuple[int, ...], key: str
) -> None:
    rule = hashed(shares, levels=list(levels), key=key)
    before = split_of_images(rule, tables(first))
    after = split_of_images(rule, tables(first | more))
    assert set(before) == first
    assert {image: after[image] for image in first} == before
    assert set(after.values()) <= set(shares)


@given(IMAGES, SHARES, LEVELS.filter(bool))
def test_no_group_straddles_a_split(
    images: set[str], shares: dict[str, float], levels: tuple[int, ...]
) -> None:
    rule = hashed(shares, levels=list(levels))
    split = split_of_images(rule, tables(images))
    places: dict[tuple[str, ...], set[str]] = {}
    for image in images:
        folders = image.split("/")[:-1]
        group = tuple(folders[level - 1 if level > 0 else level] for level in levels)
        places.setdefault(group, set()).add(split[image])
    assert all(len(splits) == 1 for splits in places.values())


def test_shares_hold_on_average() -> None:
    rule = hashed({"train": 0.7, "val": 0.1, "test": 0.2})
    counts = Counter(dealt(f"group {n}", rule) for n in range(20_000))
    # Three standard deviations of a share are at most 0.011.
    for split, share in rule.shares.items():
        assert counts[split] / 20_000 == pytest.approx(share, abs=0.011)


def test_splits_never_change() -> None:
    """A change of the hash would deal all published splits anew."""
    rule = hashed({"train": 0.5, "test": 0.5}, key="k")
    assert "".join(dealt(str(n), rule)[1] for n in range(16)) == "erereererereeerr"
    other = hashed({"train": 0.5, "test": 0.5}, key="l")
    assert any(dealt(str(n), rule) != dealt(str(n), other) for n in range(16))


def test_an_image_in_another_format_stays_in_its_split() -> None:
    rule = hashed({"train": 0.5, "test": 0.5})
    groups = groups_of_images(rule, tables({"a/x.png", "b/x.jpg"}))
    assert groups == groups_of_images(rule, tables({"a/x.png"})) | {"b/x.jpg": "b/x"}
    assert groups["a/x.png"] == "a/x"


def test_a_group_may_come_from_the_name_or_from_a_table(tmp_path: Path) -> None:
    images = [f"video{v}_{n:03}.png" for v in range(6) for n in range(4)]
    write(tmp_path, *images, side=2)
    write_text(tmp_path, "t.csv", "name,flight", *(f"{i},f{i[5]}" for i in images))
    shares = {"train": 0.5, "test": 0.5}
    by_name = {"by": "hash", "shares": shares, "name": "^(video[0-9])_"}
    by_table = {"by": "hash", "shares": shares, "column": "flight"}
    for splits in (by_name, by_table):
        dealt_images = [
            names(opened(tmp_path, split, splits=splits, table="t.csv")) for split in shares
        ]
        assert sorted(image for part in dealt_images for image in part) == sorted(images)
        flights = [{image[:6] for image in part} for part in dealt_images]
        assert not flights[0] & flights[1]
    with pytest.raises(
        ArchiveError, match=r"video0_000\.png does not fit splits\.name = '\^\(x\)'"
    ):
        opened(tmp_path, "train", splits={**by_name, "name": "^(x)"})


def test_a_split_that_no_group_fell_into_says_so(tmp_path: Path) -> None:
    write(tmp_path, "a/1.png", "a/2.png")
    splits = {"by": "hash", "shares": {"train": 0.5, "test": 0.5}, "levels": [1]}
    full = dealt("a", hashed({"train": 0.5, "test": 0.5}, levels=[1]))
    (empty,) = {"train", "test"} - {full}
    assert len(opened(tmp_path, full, splits=splits)) == 2
    with pytest.raises(ArchiveError, match=f"Split '{empty}' of folder 'frames' has none of its 2"):
        opened(tmp_path, empty, splits=splits)


# Folders and columns.

PARTS = {"train": ["oslo", "bonn"], "test": ["lima"]}


def test_places_are_split_by_folder(tmp_path: Path) -> None:
    write(tmp_path, "oslo/1.png", "bonn/2.png", "lima/3.png")
    splits: dict[str, Any] = {"by": "folder", "parts": PARTS}
    assert names(opened(tmp_path, "train", splits=splits)) == ["bonn/2.png", "oslo/1.png"]
    assert names(opened(tmp_path, "test", splits=splits)) == ["lima/3.png"]
    write(tmp_path, "pune/4.png")
    with pytest.raises(ArchiveError, match=r"pune/4\.png has 'pune' as folder 1, which is in no s"):
        opened(tmp_path, "train", splits=splits)
    splits["left_out"] = ["pune"]
    assert len(opened(tmp_path, "train", splits=splits)) == 2
    splits["parts"] = {**PARTS, "val": ["quito"]}
    with pytest.raises(ArchiveError, match="No image has 'quito' as folder 1, which 'splits' name"):
        opened(tmp_path, "train", splits=splits)


@given(st.lists(st.sampled_from(["train", "val", "test"]), min_size=3, max_size=12))
def test_a_column_splits_as_the_csv_module_reads_it(
    tmp_path_factory: pytest.TempPathFactory, cells: list[str]
) -> None:
    data = tmp_path_factory.mktemp("column")
    cells = ["train", "val", "test", *cells]
    images = [f"{number:02}.png" for number in range(len(cells))]
    write(data, *images, side=1)
    rows = (f"{i},{c}" for i, c in zip(images, cells, strict=True))
    table = write_text(data, "t.csv", "file,part", *rows)
    with table.open(newline="") as file:
        expected = [(row["part"], row["file"]) for row in csv.DictReader(file)]
    for split in ("train", "val", "test"):
        splits = {"by": "column", "column": "part"}
        adapter = opened(data, split, table="t.csv", splits=splits)
        assert names(adapter) == [image for part, image in expected if part == split]


# Lists.


def test_lists_name_the_images_of_a_split(tmp_path: Path) -> None:
    write(tmp_path, "x/1.png", "x/2.png", "y/3 a.png", "y/4.png")
    first = write_text(tmp_path, "train.txt", "x/2.png 7", "", "3 a")
    write_text(tmp_path, "test.txt", "1.png")
    splits = {"by": "list", "files": {"train": "train.txt", "test": "test.txt"}}
    train = opened(tmp_path, "train", splits=splits)
    assert names(train) == ["x/2.png", "y/3 a.png"]
    assert names(opened(tmp_path, "test", splits=splits)) == ["x/1.png"]
    assert first in train.inputs()
    assert train.label_files() == []


@pytest.mark.parametrize(
    ("train", "message"),
    [
        (["x/1.png", "x/9.png"], r"Line 2 of .*train\.txt is 'x/9\.png', which names no image"),
        (["x/1.png", "1"], r"Line 2 of .*train\.txt lists x/1\.png again, after line 1"),
        (["x/2.png"], r"test\.txt lists x/2\.png, which is in split 'train' already"),
    ],
)
def test_a_faulty_list_is_refused(tmp_path: Path, train: list[str], message: str) -> None:
    write(tmp_path, "x/1.png", "x/2.png")
    write_text(tmp_path, "train.txt", *train)
    write_text(tmp_path, "test.txt", "x/2.png")
    splits = {"by": "list", "files": {"train": "train.txt", "test": "test.txt"}}
    with pytest.raises(ArchiveError, match=message):
        opened(tmp_path, "train", splits=splits)
    (tmp_path / "frames" / "train.txt").unlink()
    with pytest.raises(ArchiveError, match=r"train\.txt does not exist; put the file there, or c"):
        opened(tmp_path, "train", splits=splits)
