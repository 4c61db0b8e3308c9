"""Labels of a folder of images, compared with what pandas and Pillow read from the same files."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from helpers.folders import names, opened, write, write_text
from numpy.typing import NDArray
from PIL import Image

from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.files import write_tiff
from rscl_bench.errors import ArchiveError, SpecError

#: Table of counts, by name without suffix, in an order other than that of the files.
COUNTS = ("name,when,cars,trees", "b,day,2,0", "a,night,0,1", "c,day,1,5")


def labels_of(adapter: DatasetAdapter) -> NDArray[np.uint8]:
    scenes = (adapter.scene(index, with_labels=True) for index in range(len(adapter)))
    return np.stack([scene.labels for scene in scenes if scene.labels is not None])


# Folders.


@pytest.mark.parametrize(("level", "classes"), [(-1, ("x", "y")), (1, ("east", "west"))])
def test_a_folder_names_the_class(tmp_path: Path, level: int, classes: tuple[str, ...]) -> None:
    write(tmp_path, "east/x/1.png", "east/y/2.png", "west/y/3.png")
    adapter = opened(tmp_path, "all", labels={"by": "folder", "level": level})
    assert adapter.classes == classes
    frame = pd.Series([name.split("/")[-2 if level < 0 else 0] for name in names(adapter)])
    assert np.array_equal(labels_of(adapter), pd.get_dummies(frame).to_numpy(np.uint8))


def test_classes_in_a_stated_order_must_be_those_of_the_folders(tmp_path: Path) -> None:
    write(tmp_path, "x/1.png", "y/2.png")
    adapter = opened(tmp_path, "all", labels={"by": "folder", "classes": ["y", "x"]})
    assert adapter.classes == ("y", "x")
    assert labels_of(adapter).tolist() == [[0, 1], [1, 0]]
    with pytest.raises(ArchiveError, match=r"y/2\.png has the class 'y', which labels\.classes"):
        opened(tmp_path, "all", labels={"by": "folder", "classes": ["x"]})
    with pytest.raises(ArchiveError, match=r"No image has the class 'z' of labels\.classes"):
        opened(tmp_path, "all", labels={"by": "folder", "classes": ["x", "y", "z"]})


def test_an_image_without_the_folder_of_its_class_is_named(tmp_path: Path) -> None:
    write(tmp_path, "x/1.png", "2.png")
    with pytest.raises(ArchiveError, match=r"^2\.png has no folder -1 below root to name its"):
        opened(tmp_path, "all", labels={"by": "folder"})


def test_all_splits_have_the_classes_of_the_folder(tmp_path: Path) -> None:
    write(tmp_path, "train/x/1.png", "train/y/2.png", "test/y/3.png")
    splits = {"by": "folder", "parts": {"train": ["train"], "test": ["test"]}}
    for split in ("train", "test"):
        assert opened(tmp_path, split, labels={"by": "folder"}, splits=splits).classes == ("x", "y")


# Tables.


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
def test_columns_of_numbers_are_classes(tmp_path: Path, delimiter: str, bom: str) -> None:
    write(tmp_path, "one/a.png", "one/b.png", "two/c.png")
    lines = [line.replace(",", delimiter) for line in COUNTS]
    table = write_text(tmp_path, "counts.csv", bom + lines[0], *lines[1:])
    rule = {"by": "columns", "columns": ["trees", "cars"]}
    adapter = opened(tmp_path, "all", table="counts.csv", labels=rule)
    assert adapter.classes == ("trees", "cars")
    frame = pd.read_csv(table, sep=delimiter, index_col="name", encoding="utf-8-sig")
    stems = [path.stem for path in adapter.files]
    expected = (frame.loc[stems, ["trees", "cars"]] > 0).to_numpy(np.uint8)
    assert np.array_equal(labels_of(adapter), expected)
    above = opened(tmp_path, "all", table="counts.csv", labels={**rule, "above": 1})
    assert np.array_equal(
        labels_of(above), (frame.loc[stems, ["trees", "cars"]] > 1).to_numpy(np.uint8)
    )


def test_all_columns_but_that_of_the_image_are_classes(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png")
    write_text(tmp_path, "t.csv", "cars,name,trees", "1,a,0", "0,b.png,1")
    options = {"table": "t.csv", "image_column": "name", "labels": {"by": "columns"}}
    adapter = opened(tmp_path, "all", **options)
    assert adapter.classes == ("cars", "trees")
    assert labels_of(adapter).tolist() == [[1, 0], [0, 1]]


def test_a_column_that_is_no_number_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png", "c.png")
    write_text(tmp_path, "counts.csv", *COUNTS)
    with pytest.raises(ArchiveError, match=r"Column 'when' has 'night' for a\.png, which is"):
        opened(tmp_path, "all", table="counts.csv", labels={"by": "columns"})
    rule = {"by": "columns", "columns": ["car"]}
    with pytest.raises(SpecError, match=r"Unknown column of .*\.csv 'car'; did you mean 'cars'"):
        opened(tmp_path, "all", table="counts.csv", labels=rule)


def test_one_column_names_one_class_or_several(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png", "c.png")
    table = write_text(tmp_path, "t.csv", "file,kinds", "a.png,oak; elm", "b.png,", "c.png,elm")
    rule = {"by": "column", "column": "kinds", "separator": ";"}
    adapter = opened(tmp_path, "all", table="t.csv", labels=rule)
    kinds = pd.read_csv(table)["kinds"].astype(object)  # pyarrow's strings give "" a column
    expected = kinds.fillna("").str.replace(" ", "").str.get_dummies(";")
    assert adapter.classes == tuple(expected.columns)
    assert np.array_equal(labels_of(adapter), expected.to_numpy(np.uint8))
    with pytest.raises(ArchiveError, match=r"b\.png has no class in column 'kinds'; fill the cell"):
        opened(tmp_path, "all", table="t.csv", labels={"by": "column", "column": "kinds"})


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["name,x", "a,1"], r"b\.png has no row in .*t\.csv; add one, or narrow 'pattern'"),
        (["name,x", "a,1", "b,1", "q,1"], r"1 of 3 rows of .* name no image .* the first 'q'"),
        (["name,x", "a,1", "b,1", "a.png,0"], r"Line 4 of .* is a second row for a\.png, after li"),
        (["name,x", "a,1,2", "b,1"], r"Line 2 of .* has 3 cells where the header has 2"),
        (["name,x,x", "a,1,2", "b,1,2"], "has two columns 'x'"),
        (["name,x", 'a,"1', "b,1"], r"Line 2 of .* is no row of a table"),
        ([" "], r"t\.csv is empty"),
    ],
)
def test_a_faulty_table_is_refused(tmp_path: Path, lines: list[str], message: str) -> None:
    write(tmp_path, "a.png", "b.png")
    write_text(tmp_path, "t.csv", *lines)
    with pytest.raises(ArchiveError, match=message):
        opened(tmp_path, "all", table="t.csv", labels={"by": "columns"})


def test_spare_rows_are_left_out_on_demand(tmp_path: Path) -> None:
    write(tmp_path, "a.png")
    write_text(tmp_path, "t.csv", "name,x", "a,1", "q,0")
    options = {"table": "t.csv", "labels": {"by": "columns"}}
    adapter = opened(tmp_path, "all", rows_without_image="leave-out", **options)
    assert labels_of(adapter).tolist() == [[1]]


def test_a_name_that_two_images_have_needs_its_path(tmp_path: Path) -> None:
    write(tmp_path, "one/a.png", "two/a.png")
    options = {"table": "t.csv", "labels": {"by": "columns"}}
    write_text(tmp_path, "t.csv", "name,x", "a,1")
    with pytest.raises(
        ArchiveError, match=r"names both one/a\.png and two/a\.png by 'a'; write pa"
    ):
        opened(tmp_path, "all", **options)
    write_text(tmp_path, "t.csv", "name,x", "two\\a,1", "./one/a.png,0")
    assert labels_of(opened(tmp_path, "all", **options)).tolist() == [[0], [1]]


def test_select_takes_images_by_their_row(tmp_path: Path) -> None:
    write(tmp_path, "a.png", "b.png", "c.png")
    write_text(tmp_path, "counts.csv", *COUNTS, "lost,night,0,0")
    options: dict[str, Any] = {"table": "counts.csv", "select": {"when": ["day"]}}
    assert names(opened(tmp_path, "all", **options)) == ["b.png", "c.png"]
    with pytest.raises(ArchiveError, match=r"1 of 4 rows .* name no image .* the first 'lost'"):
        opened(tmp_path, "all", table="counts.csv", select={"when": ["night"]})
    with pytest.raises(SpecError, match=r"No row of .* has 'dawn' in column 'when', which"):
        opened(tmp_path, "all", table="counts.csv", select={"when": ["dawn"]})


# Masks.


def mask_of(adapter: DatasetAdapter, index: int) -> NDArray[np.uint8]:
    mask = adapter.scene(index, with_labels=True).mask
    assert mask is not None
    return mask


def write_masks(data: Path, suffix: str, values: list[int]) -> None:
    for path in write(data, "images/a.png", "images/b.png"):
        rng = np.random.default_rng(list(path.stem.encode()))
        mask = rng.choice(np.array(values, np.uint8), (16, 16))
        target = data / "frames" / "masks" / f"{path.stem}_m{suffix}"
        target.parent.mkdir(exist_ok=True)
        if suffix == ".tif":
            write_tiff(target, mask[:, :, None])
        elif suffix == ".npy":
            np.save(target, mask)
        else:
            Image.fromarray(mask).save(target)


def mask_rule(suffix: str, **more: Any) -> dict[str, Any]:
    labels = {"by": "mask", "path": f"masks/{{stem}}_m{suffix}", "classes": ["land", "sea"]}
    return {"pattern": "images/*", "labels": {**labels, **more}}


@pytest.mark.parametrize("suffix", [".png", ".tif", ".npy"])
def test_masks_hold_class_numbers(tmp_path: Path, suffix: str) -> None:
    write_masks(tmp_path, suffix, [0, 1, 9])
    adapter = opened(tmp_path, "all", **mask_rule(suffix, ignored=[9]))
    mask = mask_of(adapter, 1)
    stored = tmp_path / "frames" / "masks" / f"b_m{suffix}"
    raw = np.load(stored) if suffix == ".npy" else np.asarray(Image.open(stored))
    assert np.array_equal(mask, np.where(raw == 9, 255, raw))
    assert set(adapter.inputs()) == {*adapter.files, *adapter.label_files()}
    assert len(adapter.label_files()) == 2
    with pytest.raises(ArchiveError, match="holds the values 9, which are no class; add them to"):
        opened(tmp_path, "all", **mask_rule(suffix)).scene(1, with_labels=True)


def test_masks_may_have_values_of_their_own(tmp_path: Path) -> None:
    write_masks(tmp_path, ".png", [50, 200])
    adapter = opened(tmp_path, "all", **mask_rule(".png", values=[200, 50]))
    raw = np.asarray(Image.open(tmp_path / "frames" / "masks" / "a_m.png"))
    assert np.array_equal(mask_of(adapter, 0), np.where(raw == 200, 0, 1))


@pytest.mark.parametrize(("classes", "rest"), [(["sea"], 255), (["land", "sea"], 0)])
def test_a_threshold_parts_a_mask(tmp_path: Path, classes: list[str], rest: int) -> None:
    write_masks(tmp_path, ".png", [0, 127, 128, 255])
    rule = mask_rule(".png", classes=classes, threshold=128)
    raw = np.asarray(Image.open(tmp_path / "frames" / "masks" / "a_m.png"))
    mask = mask_of(opened(tmp_path, "all", **rule), 0)
    assert np.array_equal(mask, np.where(raw >= 128, len(classes) - 1, rest))


@pytest.mark.parametrize(
    ("path", "image", "expected"),
    [
        ("{folder}/{stem}_mask.png", "p/q/x.png", "p/q/x_mask.png"),
        ("{folder}/{stem}_mask.png", "x.png", "x_mask.png"),
        ("masks/{2}/{1}/{name}", "p/q/x.png", "masks/q/p/x.png"),
        ("masks/{-1}/{stem}.tif", "p/q/x.png", "masks/q/x.tif"),
    ],
)
def test_the_path_of_a_mask_is_made_from_that_of_the_image(
    tmp_path: Path, path: str, image: str, expected: str
) -> None:
    write(tmp_path, image)
    rule = {"by": "mask", "path": path, "classes": ["x"]}
    adapter = opened(tmp_path, "all", pattern=image, labels=rule)
    assert adapter.label_files() == [tmp_path / "frames" / expected]


def test_a_mask_that_the_pattern_takes_for_an_image_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "x.png", "x_mask.png")
    rule = {"by": "mask", "path": "{stem}_mask.png", "classes": ["x"]}
    with pytest.raises(ArchiveError, match=r"x_mask\.png is the mask of x\.png and fits 'pattern'"):
        opened(tmp_path, "all", labels=rule)


def test_a_mask_of_colours_or_of_another_size_is_refused(tmp_path: Path) -> None:
    write_masks(tmp_path, ".png", [0, 1])
    stored = tmp_path / "frames" / "masks" / "a_m.png"
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(stored)
    adapter = opened(tmp_path, "all", **mask_rule(".png"))
    with pytest.raises(ArchiveError, match="one band of class numbers; convert its colours"):
        adapter.scene(0, with_labels=True)
    Image.fromarray(np.zeros((8, 16), np.uint8)).save(stored)
    with pytest.raises(ArchiveError, match=r"The mask of .*a\.png is \(8, 16\) where its image"):
        adapter.scene(0, with_labels=True)
