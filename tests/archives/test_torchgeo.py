"""Datasets of TorchGeo by name, read from small archives that the tests write.

References are the arrays that were written, never what TorchGeo returns.
"""

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import SkipTest

import numpy as np
import pytest
import torch
from helpers import torchgeo_archives as archives
from helpers.torchgeo_archives import Written
from PIL import Image

from rscl_bench.archives.adapter import UNDEFINED, DatasetAdapter
from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.archives.torchgeo.adapter import TorchGeoAdapter
from rscl_bench.errors import ArchiveError, SpecError
from rscl_bench.spec import Source
from rscl_bench.testing import check_adapter
from rscl_bench.tiles.packing import open_or_pack

Write = Callable[[Path], Written]
RGB_SENSOR: dict[str, Any] = {
    "dtype": "uint16",
    "unit": "number",
    "scale": 1000.0,
    "bands": [{"name": "grey", "wavelength_nm": 600.0}],
}


def opened(name: str, root: Path, options: dict[str, Any], split: str = "train") -> DatasetAdapter:
    return adapter_class(f"torchgeo:{name}", options)(root, split, options)


def items(adapter: DatasetAdapter) -> list[str]:
    """Return the file of each item, relative to the archive's folder."""
    return [adapter.canonical_path(path) for path in adapter.files]


#: Class, writer, options: one of each kind of label and format.
KINDS: list[tuple[str, Write, dict[str, Any]]] = [
    ("EuroSAT", archives.eurosat, {}),
    ("TreeSatAI", archives.treesatai, {}),
    ("LoveDA", archives.loveda, {}),
    ("LEVIRCDPlus", lambda root: archives.levircdplus(root, 1), {"date": 1}),
    ("LEVIRCDPlus", lambda root: archives.levircdplus(root, 2), {"date": 2}),
    ("DOTA", archives.dota, {"version": "1.0"}),
    ("DOTA", archives.dota, {"version": "1.0", "bbox_orientation": "horizontal"}),
    ("RESISC45", archives.resisc45, {}),
]


@pytest.mark.parametrize(("name", "write", "options"), KINDS)
def test_every_value_is_that_of_the_file(
    name: str, write: Write, options: dict[str, Any], tmp_path: Path
) -> None:
    written = write(tmp_path)
    adapter = opened(name, tmp_path, options)
    assert set(items(adapter)) == set(written.images)
    for index, file in enumerate(items(adapter)):
        image = adapter.scene(index).image
        assert image.dtype == adapter.sensor.dtype == written.images[file].dtype
        assert np.array_equal(image, written.images[file]), file


@pytest.mark.parametrize(("name", "write", "options"), KINDS)
def test_labels_are_those_that_were_written(
    name: str, write: Write, options: dict[str, Any], tmp_path: Path
) -> None:
    written = write(tmp_path)
    adapter = opened(name, tmp_path, options)
    seen = 0
    for index, file in enumerate(items(adapter)):
        scene = adapter.scene(index, with_labels=True)
        if file in written.masks:
            assert scene.mask is not None
            expected = written.masks[file]
            if name == "LoveDA":  # value 0 is no class, and the classes begin with value 1
                expected = np.where(expected == 0, UNDEFINED, expected - 1)
            assert np.array_equal(scene.mask, expected)
        elif scene.objects is not None:
            assert set(scene.objects.classes.tolist()) == written.labels[file]
        else:
            assert scene.labels is not None
            assert set(np.flatnonzero(scene.labels).tolist()) == written.labels[file]
        seen += 1
    assert seen == len(written.images)


@pytest.mark.parametrize(("name", "write", "options"), KINDS)
def test_inputs_are_the_files_of_the_split(
    name: str, write: Write, options: dict[str, Any], tmp_path: Path
) -> None:
    written = write(tmp_path)
    other = tmp_path / written.folder / "README.txt"
    other.write_text("no part of the archive", encoding="utf-8")
    adapter = opened(name, tmp_path, options)
    assert {adapter.canonical_path(path) for path in adapter.inputs()} == written.files


def test_class_names_of_loveda_follow_its_masks(tmp_path: Path) -> None:
    """TorchGeo lists background first, but its masks have no-data at 0 and background at 1."""
    archives.loveda(tmp_path)
    adapter = opened("LoveDA", tmp_path, {})
    assert adapter.classes[:2] == ("background", "building")
    assert len(adapter.classes) == 7


def test_bands_of_the_constructor_select_and_order(tmp_path: Path) -> None:
    written = archives.eurosat(tmp_path)
    options = {"bands": ["B04", "B8A", "B02"]}
    adapter = opened("EuroSAT", tmp_path, options)
    assert [band.name for band in adapter.sensor.bands] == ["red", "nir-narrow", "blue"]
    assert [band.wavelength_nm for band in adapter.sensor.bands] == [665, 865, 490]
    file = items(adapter)[0]
    assert np.array_equal(adapter.scene(0).image, written.images[file][:, :, [3, 12, 1]])


def test_all_bands_have_the_order_of_the_files(tmp_path: Path) -> None:
    """EuroSAT's files have band 8A last, unlike the operator's list."""
    archives.eurosat(tmp_path)
    names = [band.name for band in opened("EuroSAT", tmp_path, {}).sensor.bands]
    assert names[7:] == ["nir", "water-vapour", "cirrus", "swir-1", "swir-2", "nir-narrow"]


def test_a_class_whose_folder_is_missing_shifts_no_label(tmp_path: Path) -> None:
    written = archives.resisc45(tmp_path, left_out=("beach",))
    adapter = opened("RESISC45", tmp_path, {})
    for index, file in enumerate(items(adapter)):
        labels = adapter.scene(index, with_labels=True).labels
        assert labels is not None
        assert set(np.flatnonzero(labels).tolist()) == written.labels[file]


def test_objects_of_a_tile_are_those_whose_centre_it_holds(tmp_path: Path) -> None:
    archives.dota(tmp_path)
    options = {"version": "1.0"}
    source = Source(
        dataset="torchgeo:DOTA", split="train", tile_size=32, options=options, cut="grid"
    )
    store = open_or_pack(tmp_path, source, tmp_path / "cache", with_labels=True)
    names = [[store.classes[i] for i in np.flatnonzero(row)] for row in store.labels(0.0)]
    # Each image has four tiles, by rows; the boxes have their centres at +4.
    assert names == [["plane"], [], [], ["ship"], *[[]] * 4, [], ["harbor"], [], []]


# The tile store.


def digest(root: Path, cache: Path, name: str = "LoveDA", **options: Any) -> str:
    source = Source(dataset=f"torchgeo:{name}", split="train", tile_size=32, options=options)
    return open_or_pack(root, source, cache, with_labels=True).source_digest


def test_tiles_are_packed_again_when_a_file_of_an_item_changes(tmp_path: Path) -> None:
    written = archives.loveda(tmp_path)
    cache = tmp_path / "cache"
    first = digest(tmp_path, cache)
    assert digest(tmp_path, cache) == first
    for file in sorted(written.files)[:2]:  # an image and a mask
        path = tmp_path / "loveda" / file
        before = path.read_bytes()
        pixels = np.asarray(Image.open(path)).copy()
        pixels[0, 0] = (pixels[0, 0] + 1) % 7
        Image.fromarray(pixels).save(path)
        assert digest(tmp_path, cache) != first
        path.write_bytes(before)
    assert digest(tmp_path, cache) == first


def test_a_digest_does_not_depend_on_the_place(tmp_path: Path) -> None:
    digests = set()
    for place in ("here", "there"):
        root = tmp_path / place
        archives.loveda(root)
        digests.add(digest(root, tmp_path / f"cache-{place}"))
    assert len(digests) == 1


def test_a_file_of_many_items_is_hashed_once(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py", reason="So2Sat needs h5py, which is not installed")
    rng = np.random.default_rng(0)
    (tmp_path / "so2sat").mkdir()
    numbers = rng.integers(0, 10_000, (5, 32, 32, 10))
    with h5py.File(tmp_path / "so2sat" / "training.h5", "w") as file:
        file["sen1"] = rng.normal(size=(5, 32, 32, 8))
        file["sen2"] = numbers / 10_000
        file["label"] = np.eye(17)[[0, 3, 5, 5, 16]]
    adapter = opened("So2Sat", tmp_path, {})
    assert items(adapter) == ["training.h5"] * 5
    for index in range(5):
        assert np.array_equal(adapter.scene(index).image, numbers[index])
    source = Source(dataset="torchgeo:So2Sat", split="train", tile_size=32)
    store = open_or_pack(tmp_path, source, tmp_path / "cache", with_labels=True)
    assert np.array_equal(store.tiles, numbers[..., [2, 1, 0]])
    assert store.labels(0.5).argmax(axis=1).tolist() == [0, 3, 5, 5, 16]


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("EuroSAT", archives.eurosat),
        ("RESISC45", archives.resisc45),
        ("PatternNet", archives.patternnet),
    ],
)
def test_the_contract_of_datasets_holds(name: str, write: Write, tmp_path: Path) -> None:
    """A dataset without a sketch is checked on its archive, and the rest of the checks skipped."""
    write(tmp_path / "data")
    with pytest.raises(SkipTest, match="its real archive was checked"):
        check_adapter(f"torchgeo:{name}", tmp_path / "work", data_root=tmp_path / "data")


# What cannot be stored exactly.


def grey(root: Path, monkeypatch: pytest.MonkeyPatch, image: Any, **sample: Any) -> None:
    """Let TorchGeo's EuroSAT return one image as float32, whatever is in its files."""
    from torchgeo.datasets import EuroSAT

    if not (root / "eurosat").is_dir():
        archives.eurosat(root)
    read = EuroSAT.__getitem__

    def changed(self: Any, index: int) -> Any:
        return {**read(self, index), "image": torch.as_tensor(image), **sample}

    monkeypatch.setattr(EuroSAT, "__getitem__", changed)


def test_values_that_are_no_whole_numbers_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey(tmp_path, monkeypatch, np.full((1, 4, 4), 0.25, np.float32))
    message = r"holds 0\.25 in band 'grey', which tiles of uint16 \(number\) cannot hold; declare"
    with pytest.raises(ArchiveError, match=message):
        opened("EuroSAT", tmp_path, {"sensor": RGB_SENSOR}).scene(0)


@pytest.mark.parametrize("value", [-1.0, 65_536.0, float("inf")])
def test_values_beyond_the_type_are_refused(
    value: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey(tmp_path, monkeypatch, np.full((1, 4, 4), value, np.float32))
    with pytest.raises(ArchiveError, match="in band 'grey', which tiles of uint16"):
        opened("EuroSAT", tmp_path, {"sensor": RGB_SENSOR}).scene(0)


def test_a_declared_conversion_makes_whole_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decibels = np.linspace(-40, 0, 16, dtype=np.float32).reshape(1, 4, 4)
    grey(tmp_path, monkeypatch, decibels)
    options = {"sensor": RGB_SENSOR, "convert": {"multiply": 100.0, "add": 5000.0}}
    image = opened("EuroSAT", tmp_path, options).scene(0).image
    assert np.array_equal(image[:, :, 0], np.rint(decibels[0].astype(float) * 100 + 5000))


def test_missing_values_stay_out_of_the_statistics(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = np.full((1, 4, 4), 10, np.float32)
    image[0, 0, 0], image[0, 0, 1] = np.nan, -9999
    grey(tmp_path, monkeypatch, image)
    scene = opened("EuroSAT", tmp_path, {"sensor": RGB_SENSOR, "nodata": -9999.0}).scene(0)
    assert scene.missing is not None
    assert np.argwhere(scene.missing[:, :, 0]).tolist() == [[0, 0], [0, 1]]
    assert (scene.image == 10).all()


def test_a_series_needs_a_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    series = np.arange(32, dtype=np.float32).reshape(2, 1, 4, 4)
    grey(tmp_path, monkeypatch, series)
    with pytest.raises(ArchiveError, match=r"has 2 dates; set options\.date to one of 1 to 2"):
        opened("EuroSAT", tmp_path, {"sensor": RGB_SENSOR}).scene(0)
    with pytest.raises(ArchiveError, match=r"has 2 dates, and options\.date is 3"):
        opened("EuroSAT", tmp_path, {"sensor": RGB_SENSOR, "date": 3}).scene(0)
    second = opened("EuroSAT", tmp_path, {"sensor": RGB_SENSOR, "date": 2}).scene(0).image
    assert np.array_equal(second[:, :, 0], series[1, 0])


def test_channels_are_chosen_from_1(tmp_path: Path) -> None:
    written = archives.eurosat(tmp_path)
    bands = [{"name": name, "wavelength_nm": 600.0} for name in ("second", "first")]
    options = {"sensor": {**RGB_SENSOR, "bands": bands}, "channels": [2, 1]}
    adapter = opened("EuroSAT", tmp_path, options)
    image = adapter.scene(0).image
    assert np.array_equal(image, written.images[items(adapter)[0]][:, :, [1, 0]])


# Labels that no probe takes.


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        ({"label": torch.tensor(0.5)}, r"has the number 0\.5 as 'label'; probes take classes"),
        ({"label": torch.tensor(10)}, "holds label 10 where EuroSAT dataset .* has the labels 0 "),
        ({"label": torch.zeros(3)}, "where 10 multi-labels of 0 and 1 are expected"),
        (
            {"mask": torch.zeros(4, 4)},
            r"has several kinds of labels; set options\.label_key to one of 'label', 'mask'",
        ),
    ],
)
def test_wrong_labels_are_refused(
    sample: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grey(tmp_path, monkeypatch, np.ones((1, 4, 4), np.float32), **sample)
    with pytest.raises(ArchiveError, match=message):
        opened("EuroSAT", tmp_path, {"sensor": RGB_SENSOR}).scene(0, with_labels=True)


def test_ignored_values_are_undefined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.tensor([[0, 1], [2, 255]])
    grey(tmp_path, monkeypatch, np.ones((1, 2, 2), np.float32), mask=mask)
    options = {
        "sensor": RGB_SENSOR,
        "label_key": "mask",
        "class_names": ["water", "cloud", "forest"],
        "ignore": [1, 255],
    }
    adapter = opened("EuroSAT", tmp_path, options)
    assert adapter.classes == ("water", "forest")
    found = adapter.scene(0, with_labels=True).mask
    assert found is not None
    assert found.tolist() == [[0, UNDEFINED], [1, UNDEFINED]]


# What a scenario may get wrong.


@pytest.mark.parametrize(
    ("dataset", "options", "message"),
    [
        ("torchgeo:EuroSat", {}, r"Unknown dataset of TorchGeo .* did you mean 'EuroSAT'\?"),
        ("torchgeo", {}, "names no class of TorchGeo"),
        ("torchgeo:EuroSAT", {"band": ["B02"]}, "did you mean 'bands'"),
        ("torchgeo:EuroSAT", {"bands": ["B02", "B99"]}, "Unknown band .* 'B99'"),
        ("torchgeo:EuroSAT", {"sensor": "sentinel2"}, "Unknown sensor 'sentinel2'; did you mean"),
        ("torchgeo:EuroSAT", {"date": 0}, "greater than or equal to 1"),
        ("torchgeo:SSL4EOL", {}, r"The bands of dataset torchgeo:SSL4EOL are not declared; set "),
        ("torchgeo:PASTIS", {}, r"are not declared \(its class reads|are not declared; set "),
        (
            "torchgeo:EuroSAT",
            {"sensor": {"bands": [{"name": "b", "wavelength_nm": -1.0}]}},
            "greater than 0",
        ),
        (
            "torchgeo:EuroSAT",
            {"sensor": {"bands": [{"name": "b", "wavelength_nm": 1.0}], "dtype": "uint16"}},
            "lacks unit, scale",
        ),
        ("torchgeo:EuroSAT", {"folder": "../elsewhere"}, "folder"),
    ],
)
def test_a_wrong_declaration_is_one_sentence(
    dataset: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        adapter_class(dataset, options)
    assert "\n" not in str(caught.value)


def test_arguments_reach_the_constructor(tmp_path: Path) -> None:
    archives.eurosat(tmp_path)
    adapter = opened("EuroSAT", tmp_path, {"arguments": {"bands": ["B02"]}})
    assert [band.name for band in adapter.sensor.bands] == ["blue"]
    with pytest.raises(SpecError, match="has 'bonds', which is no parameter"):
        opened("EuroSAT", tmp_path, {"arguments": {"bonds": ["B02"]}})


def test_what_torchgeo_refuses_is_told(tmp_path: Path) -> None:
    archives.dota(tmp_path)
    with pytest.raises(SpecError, match=r"DOTA refuses .*AssertionError.*'9\.0'.*; correct"):
        opened("DOTA", tmp_path, {"version": "9.0"})
    with pytest.raises(SpecError, match="Unknown split of torchgeo:DOTA 'test'"):
        opened("DOTA", tmp_path, {}, split="test")


@pytest.mark.parametrize("state", ["absent", "empty"])
def test_a_missing_archive_names_folder_source_and_licence(state: str, tmp_path: Path) -> None:
    folder = tmp_path / "eurosat"
    if state == "empty":
        folder.mkdir()
    with pytest.raises(ArchiveError, match="is missing or partial") as caught:
        opened("EuroSAT", tmp_path, {})
    source = "https://hf.co/datasets/torchgeo/eurosat"
    for text in (str(folder), "licence: MIT", source, "rscl-bench data fetch"):
        assert text in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    written = archives.treesatai(tmp_path)
    gone = sorted(written.images)[1]
    (tmp_path / "treesatai" / gone).unlink()
    source = Source(dataset="torchgeo:TreeSatAI", split="train", tile_size=32)
    with pytest.raises(ArchiveError, match=f"{gone} does not exist"):
        open_or_pack(tmp_path, source, tmp_path / "cache")


def test_a_package_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "so2sat").mkdir()
    for name in ("training", "validation", "testing"):
        (tmp_path / "so2sat" / f"{name}.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SpecError, match="needs the package h5py, which is not installed"):
        opened("So2Sat", tmp_path, {})


def test_a_folder_that_is_no_class_is_refused(tmp_path: Path) -> None:
    archives.resisc45(tmp_path)
    folder = tmp_path / "resisc45" / "NWPU-RESISC45"
    (folder / "lake").rename(folder / "copy of lake")
    adapter = opened("RESISC45", tmp_path, {})
    place = next(i for i, path in enumerate(adapter.files) if "lake" in path.name)
    with pytest.raises(ArchiveError, match="of the class 'copy of lake', which is none"):
        adapter.scene(place, with_labels=True)


# A run writes nothing into the data root, and reads nothing that is damaged.


def test_an_archive_that_is_not_unpacked_is_refused(tmp_path: Path) -> None:
    archives.eurosat(tmp_path)
    folder = tmp_path / "eurosat"
    shutil.make_archive(str(folder / "EuroSATallBands"), "zip", folder, "ds")
    shutil.rmtree(folder / "ds")
    before = sorted(folder.rglob("*"))
    with pytest.raises(ArchiveError, match=r"unpack .*EuroSATallBands\.zip with rscl-bench data"):
        opened("EuroSAT", tmp_path, {})
    assert sorted(folder.rglob("*")) == before


def test_a_truncated_tiff_is_refused_by_name(tmp_path: Path) -> None:
    written = archives.eurosat(tmp_path)
    adapter = opened("EuroSAT", tmp_path, {})
    path = adapter.files[1]
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ArchiveError, match=path.name):
        adapter.scene(1)
    assert len(written.images) == len(adapter)


def test_a_sparse_tiff_is_refused(tmp_path: Path) -> None:
    """GDAL reads blocks that were never written as zeros."""
    archives.eurosat(tmp_path)
    adapter = opened("EuroSAT", tmp_path, {})
    zeros = np.zeros((64, 64, 13), np.uint16)
    write_tiff(adapter.files[1], zeros, sparse_ok=True, blockysize=16)
    with pytest.raises(ArchiveError, match="lacks some of its blocks"):
        adapter.scene(1)


def test_a_png_of_16_bits_is_not_narrowed(tmp_path: Path) -> None:
    archives.loveda(tmp_path)
    adapter = opened("LoveDA", tmp_path, {})
    Image.fromarray(np.full((64, 64), 40_000, np.uint16)).save(adapter.files[1])
    with pytest.raises(ArchiveError, match="has 16 bits a channel"):
        adapter.scene(1)


# Readings are repeatable.


def test_a_season_drawn_at_random_is_the_same_at_every_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchgeo.datasets import EuroSAT

    archives.eurosat(tmp_path)

    def drawn(self: Any, index: int) -> Any:
        values = random.random(), np.random.rand(), torch.rand(()).item()  # noqa: NPY002
        numbers = np.rint(np.array(values) * 1000).reshape(3, 1, 1)
        return {"image": torch.as_tensor(numbers), "label": torch.tensor(0)}

    monkeypatch.setattr(EuroSAT, "__getitem__", drawn)
    options = {"bands": ["B04", "B03", "B02"]}
    states = random.getstate(), torch.get_rng_state()
    first, second = (opened("EuroSAT", tmp_path, options) for _ in range(2))
    images = [first.scene(index).image for index in range(4)]
    assert all(np.array_equal(images[i], second.scene(i).image) for i in (3, 1, 0, 2))
    assert len({image.tobytes() for image in images}) == 4
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])


def test_an_item_that_reads_another_file_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The digest of an item's files stands for its pixels, so no other file may change them."""
    from torchgeo.datasets import LoveDA

    archives.loveda(tmp_path)
    adapter = opened("LoveDA", tmp_path, {})
    other = tmp_path / "loveda" / "other.bin"
    other.write_bytes(b"x")
    read = LoveDA.__getitem__

    def reads_more(self: Any, index: int) -> Any:
        with other.open("rb") as file:
            file.read()
        return read(self, index)

    monkeypatch.setattr(LoveDA, "__getitem__", reads_more)
    with pytest.raises(ArchiveError, match=r"was also read from .*other\.bin"):
        adapter.scene(1)


# Splits of a dataset that has none.

DEALT = {"splits": {"shares": {"train": 0.6, "test": 0.4}, "key": "a"}}


def test_files_are_dealt_to_splits(tmp_path: Path) -> None:
    written = archives.patternnet(tmp_path)
    parts = {split: opened("PatternNet", tmp_path, DEALT, split) for split in ("train", "test")}
    found = {split: items(adapter) for split, adapter in parts.items()}
    assert sorted(found["train"] + found["test"]) == sorted(written.images)
    assert 6 <= len(found["train"]) <= 18
    for split, adapter in parts.items():
        inputs = {adapter.canonical_path(path) for path in adapter.inputs()}
        assert inputs == set(found[split])
        for index, file in enumerate(found[split]):
            scene = adapter.scene(index, with_labels=True)
            assert np.array_equal(scene.image, written.images[file])
            assert scene.labels is not None
            assert set(np.flatnonzero(scene.labels).tolist()) == written.labels[file]


def test_further_files_move_no_others(tmp_path: Path) -> None:
    archives.patternnet(tmp_path, per_class=6)
    before = set(items(opened("PatternNet", tmp_path, DEALT)))
    archives.patternnet(tmp_path, per_class=12)
    after = set(items(opened("PatternNet", tmp_path, DEALT)))
    assert before < after
    other = {"splits": {**DEALT["splits"], "key": "b"}}
    assert set(items(opened("PatternNet", tmp_path, other))) != after


@pytest.mark.parametrize(
    ("name", "shares", "message"),
    [
        ("EuroSAT", {"train": 1.0}, r"has splits of its own \(train, val, test\); leave out"),
        ("PatternNet", {"train": 0.5}, "the shares sum to 0.5; let them sum to 1"),
    ],
)
def test_wrong_shares_are_refused(name: str, shares: dict[str, float], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        adapter_class(f"torchgeo:{name}", {"splits": {"shares": shares}})


def test_equal_options_give_one_class() -> None:
    first = adapter_class("torchgeo:EuroSAT", {"bands": ["B02"], "date": 1})
    assert first is adapter_class("torchgeo:EuroSAT", {"date": 1, "bands": ["B02"]})
    assert issubclass(first, TorchGeoAdapter)
