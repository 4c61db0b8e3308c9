"""Wrong options of the dataset folder are refused in one sentence, before any file is read."""

from pathlib import Path
from typing import Any

import pytest

from rscl_bench.archives.lookup import adapter_class
from rscl_bench.errors import SpecError
from rscl_bench.sensors import Band

MASK = {"by": "mask", "path": "{stem}.png", "classes": ["a", "b"]}
HASH = {"by": "hash", "shares": {"train": 1.0}}
BAND = {"name": "x", "wavelength_nm": 500.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"root": None}, "field 'root': Input should be a valid string"),
        ({"root": "/x"}, "field 'root': '/x' is no path below a folder; write names joined by '/'"),
        ({"root": "../x"}, "'../x' is no path below a folder"),
        ({"root": "C:/x"}, "'C:/x' is no path below a folder"),
        ({"root": "a\\b"}, "is no path below a folder"),
        ({"pattern": "a/../b"}, "field 'pattern': 'a/../b' is no path below a folder"),
        ({"patern": "*"}, "Unknown key in dataset 'folder': 'patern'; did you mean 'pattern'?"),
        ({"sensor": "rgb9"}, "Unknown sensor 'rgb9'; did you mean 'rgb8'?"),
        ({"sensor": 3}, "field 'sensor': Input should be an object, got 3"),
        ({"sensor": {}}, "options.sensor lacks bands; declare bands, unit, dtype and scale"),
        ({"sensor": {"bands": []}}, "field 'sensor.bands': Tuple should have at least 1 item"),
        ({"sensor": {"bands": [{"name": "x"}]}}, "'sensor.bands.0.wavelength_nm': Field required"),
        ({"sensor": {"bands": [BAND], "dtype": "float32"}}, "field 'sensor.dtype': Input should"),
        ({"sensor": {"bands": [BAND], "dtype": "uint16"}}, "options.sensor lacks unit, scale"),
        ({"sensor": {"bands": [BAND, BAND]}}, "has the bands ['x', 'x']; name at least one, and"),
        ({"sensor": {"like": "rgb"}}, "Unknown sensor 'rgb'; did you mean"),
        ({"labels": "folder"}, "field 'labels': Input should be an object, got 'folder'"),
        ({"labels": {}}, "field 'labels': it lacks its key 'by'"),
        ({"labels": {"by": "foldr"}}, "field 'labels': 'by' = 'foldr' is none of 'folder', 'colu"),
        ({"labels": {"by": "folder", "lvel": 1}}, "'labels.lvel'; did you mean 'labels.level'?"),
        ({"labels": {"by": "folder", "level": 0}}, "field 'labels.level': folders are counted fr"),
        ({"labels": {"by": "folder", "classes": ["a", "a"]}}, "'a' stands there twice; name each"),
        ({"labels": {"by": "columns"}}, "'labels' reads a table; name it in 'table'"),
        ({"labels": {**MASK, "path": "x.png"}}, "field 'labels.path': 'x.png' names no image"),
        ({"labels": {**MASK, "path": "{stm}.png"}}, "'{stm}' is unknown; write {stem}, {name}"),
        ({"labels": {**MASK, "path": "{stem}{.png"}}, "names no image; write {stem}"),
        ({"labels": {**MASK, "values": [1]}}, "field 'labels': there are 1 values for 2 classes"),
        ({"labels": {**MASK, "ignored": [1]}}, "the value 1 is a class and ignored; choose one"),
        ({"labels": {**MASK, "ignored": [9], "threshold": 9}}, "a threshold leaves no place for"),
        ({"labels": {**MASK, "classes": ["a", "b", "c"], "threshold": 9}}, "name one or two"),
        ({"splits": {"by": "hash", "shares": {"a": 0.5}}}, "the shares sum to 0.5; let them sum"),
        ({"splits": {"by": "hash", "shares": {"a b": 1.0}}}, "should match pattern"),
        ({"splits": {**HASH, "name": "abc"}}, "'abc' has no group; put the part to take in paren"),
        ({"splits": {**HASH, "name": "("}}, "field 'splits.name': '(' is no regular expression"),
        ({"splits": {**HASH, "table": "t.csv"}}, "a table without column has no effect; name the"),
        ({"splits": {**HASH, "column": "x"}}, "'splits' reads a table; name it in 'table'"),
        ({"splits": {"by": "list", "files": {}}}, "should have at least 1 item"),
        ({"splits": {"by": "list", "files": {"a": "/x"}}}, "'/x' is no path below a folder"),
        (
            {"splits": {"by": "folder", "parts": {"a": ["x"], "b": ["x"]}}},
            "field 'splits': 'x' is in a and in b; choose one",
        ),
        (
            {"splits": {"by": "folder", "parts": {"a": ["x"]}, "left_out": ["x"]}},
            "'x' is in a and in left_out; choose one",
        ),
        ({"select": {"a": ["b"]}}, "'select' and 'image_column' read a table; name it in 'table'"),
        ({"select": {"a": "b"}}, "field 'select.a': Input should be a valid array, got 'b'"),
        ({"max_pixels": 0}, "field 'max_pixels': Input should be greater than 0, got 0"),
        ({"nodata": "drop"}, "field 'nodata': Input should be 'fill', 'refuse' or 'keep'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as error:
        adapter_class("folder", {"root": "frames", "sensor": "rgb8", **options})
    assert message in str(error.value)
    assert str(error.value).endswith(".")


def test_equal_options_give_one_class() -> None:
    options = {"root": "frames", "sensor": "rgb8", "splits": HASH}
    assert adapter_class("folder", options) is adapter_class("folder", dict(options))
    assert adapter_class("folder", options).splits == ("train",)


def test_a_named_sensor_may_have_another_distance() -> None:
    options = {"root": "frames", "sensor": {"like": "rgb8", "gsd_m": 0.5}}
    sensor = adapter_class("folder", options).sensor
    assert sensor.gsd_m == 0.5
    assert [band.name for band in sensor.bands] == ["red", "green", "blue"]


def test_a_folder_has_no_sketch(tmp_path: Path) -> None:
    adapter = adapter_class("folder", {"root": "frames", "sensor": "rgb8"})
    assert not adapter.has_sketch()
    with pytest.raises(SpecError, match=r"Dataset folder frames has no sketch: give .*--data-root"):
        adapter.write_sketch(tmp_path, None)  # type: ignore[arg-type]


def test_a_declared_band_has_width_and_kind() -> None:
    band = {"name": "vv", "wavelength_nm": 3.1e7, "width_nm": 1e5, "kind": "sar"}
    sensor = adapter_class("folder", {"root": "x", "sensor": {"bands": [band]}}).sensor
    assert sensor.bands == (Band("vv", 3.1e7, 1e5, "sar"),)
