"""Files are found by their exact names; lists and tables are read as people save them."""

import codecs
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from helpers.archives import SKETCHED

from rscl_bench import registry
from rscl_bench.archives.adapter import SKETCH_MARKER, DatasetAdapter, Scene
from rscl_bench.archives.aid import AIDAdapter
from rscl_bench.archives.rsscn7 import RSSCN7Adapter
from rscl_bench.archives.treesatai import TreeSatAIAdapter
from rscl_bench.archives.uavid import UAVidAdapter
from rscl_bench.archives.ucmerced import LABEL_FILE, UCMercedAdapter
from rscl_bench.archives.us3d import US3DAdapter
from rscl_bench.errors import ArchiveError
from rscl_bench.sensors import RGB8

Copy = Callable[[str], Path]


def adapter_type(name: str) -> type[DatasetAdapter]:
    adapter: type[DatasetAdapter] = registry.load("datasets", name)
    return adapter


def images_of(root: Path, name: str) -> list[Path]:
    adapter = adapter_type(name)
    return adapter(root, adapter.splits[0]).files


def replace(path: Path, content: bytes) -> None:
    path.unlink()  # it may be hard-linked
    path.write_bytes(content)


# Folders.


@pytest.mark.parametrize("name", SKETCHED)
def test_files_that_a_mac_adds_are_ignored(sketch_of: Copy, name: str) -> None:
    root = sketch_of(name)
    before = images_of(root, name)
    for path in {path.parent for path in before}:
        (path / ".DS_Store").write_bytes(b"\0")
    for path in before:
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    assert images_of(root, name) == before


@pytest.mark.parametrize("name", ["aid", "rsscn7", "uavid", "ucmerced", "us3d"])
@pytest.mark.parametrize("spelling", ["{} (1){}", "{} - Copy{}", "{}_2{}", "Copy of {}{}"])
def test_a_copy_is_named_and_never_read(sketch_of: Copy, name: str, spelling: str) -> None:
    root = sketch_of(name)
    path = images_of(root, name)[-1]
    copy = path.with_name(spelling.format(path.stem, path.suffix))
    shutil.copy(path, copy)
    with pytest.raises(ArchiveError) as error:
        images_of(root, name)
    assert copy.name in str(error.value)


def test_an_image_too_many_is_named(sketch_of: Copy) -> None:
    root = sketch_of("uavid")
    frame = UAVidAdapter(root, "test").files[0]
    shutil.copy(frame, frame.with_name("001000.png"))
    with pytest.raises(ArchiveError, match=r"Images holds 001000\.png, no part of UAVid"):
        UAVidAdapter(root, "test")


def test_one_image_in_two_folders_is_named(sketch_of: Copy) -> None:
    root = sketch_of("us3d")
    first = US3DAdapter(root, "train").files[0]
    other = root / "us3d" / "Track1-MSI-2" / first.name
    other.parent.mkdir()
    shutil.copy(first, other)
    with pytest.raises(ArchiveError, match="has the name of") as error:
        US3DAdapter(root, "train")
    assert str(other) in str(error.value)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("aid", ".JPG"), ("aid", ".jpeg"), ("rsscn7", ".Jpg"), ("uavid", ".PNG"), ("us3d", ".TIF")],
)
def test_another_spelling_of_the_suffix_is_read(sketch_of: Copy, name: str, suffix: str) -> None:
    root = sketch_of(name)
    before = images_of(root, name)
    last = before[-1]
    marker = root / name / SKETCH_MARKER  # it lists the old name
    listed = last.relative_to(root / name)
    old, new = (str(path).encode() for path in (listed, listed.with_suffix(suffix)))
    replace(marker, marker.read_bytes().replace(old, new))
    last.rename(last.with_suffix(suffix))
    after = images_of(root, name)
    assert after == [*before[:-1], last.with_suffix(suffix)]
    adapter = adapter_type(name)(root, adapter_type(name).splits[0])
    assert adapter.scene(len(after) - 1).image.ndim == 3
    shutil.copy(after[-1], last)
    with pytest.raises(ArchiveError, match="delete one of them") as error:
        images_of(root, name)
    assert last.name in str(error.value)


def test_order_is_by_name_and_not_by_disk(sketch_of: Copy, monkeypatch: pytest.MonkeyPatch) -> None:
    roots = {name: sketch_of(name) for name in SKETCHED}
    before = {name: images_of(root, name) for name, root in roots.items()}
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(listed(path), reverse=True))
    assert {name: images_of(root, name) for name, root in roots.items()} == before


# Lists and tables.


class Listed(DatasetAdapter):
    """An archive whose list of files may say anything."""

    name = "listed"
    folder = "listed"
    title = "Listed"
    sensor = RGB8
    splits = ("train",)
    source = "the generator of this test"
    licence = "MIT"
    layout = "NUMBER.png"

    def _list_files(self) -> list[Path]:
        return [self.root / name for name in (self.root / "list").read_text().split()]

    def _read(self, index: int, with_labels: bool) -> Scene:
        raise AssertionError("no image is read")


def test_a_file_listed_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "listed").mkdir()
    (tmp_path / "listed" / "list").write_text("a.png b.png a.png")
    with pytest.raises(ArchiveError, match=r"Split 'train' of Listed lists .*a\.png twice"):
        Listed(tmp_path, "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda names: [*names, names[3]], "twice, in lines 4 and 113; delete one"),
        (lambda names: [f"/data/{names[0]}", *names[1:]], "Line 1 of .* a path and no file name"),
        (lambda names: [f"..\\{names[0]}", *names[1:]], "Line 1 of .* a path and no file name"),
        (lambda names: [*names, "\xe9.tif"], "is no text in UTF-8 .* save it in UTF-8"),
        (lambda names: [], "train_filenames.lst is empty"),
    ],
)
def test_a_wrong_list_is_refused_by_line(
    sketch_of: Copy, change: Callable[[list[str]], list[str]], message: str
) -> None:
    root = sketch_of("treesatai")
    listing = root / "treesatai" / "train_filenames.lst"
    names = change(listing.read_text().split())
    replace(listing, "\n".join(names).encode("latin-1"))
    with pytest.raises(ArchiveError, match=message) as error:
        TreeSatAIAdapter(root, "train")
    assert str(listing) in str(error.value)


def test_a_name_for_training_and_testing_is_refused(sketch_of: Copy) -> None:
    root = sketch_of("treesatai")
    train, test = (root / "treesatai" / f"{split}_filenames.lst" for split in ("train", "test"))
    shared = test.read_text().split()[5]
    replace(train, train.read_bytes() + shared.encode() + b"\n")
    for split in TreeSatAIAdapter.splits:
        with pytest.raises(ArchiveError, match=f"both list {shared}"):
            TreeSatAIAdapter(root, split)


@pytest.mark.parametrize(
    "saved",
    [
        lambda text: codecs.BOM_UTF8 + text.encode(),
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: f"{text}\n\r\n  \n".encode(),
        lambda text: text.encode("utf-16"),
        lambda text: codecs.BOM_UTF16_BE + text.encode("utf-16-be"),
    ],
)
def test_lists_and_tables_are_read_as_they_are_saved(
    sketch_of: Copy, saved: Callable[[str], bytes]
) -> None:
    roots = [(sketch_of("treesatai"), "treesatai"), (sketch_of("ucmerced"), "ucmerced")]
    before = [images_of(root, name) for root, name in roots]
    for (root, name), file in zip(roots, ("train_filenames.lst", LABEL_FILE), strict=True):
        path = root / name / file
        replace(path, saved(path.read_text()))
    assert [images_of(root, name) for root, name in roots] == before
    labels = UCMercedAdapter(roots[1][0], "train").labels
    assert all(label.shape == (17,) for label in labels.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("\t", ","), "has no tabs between its columns"),
        (lambda text: text + text.splitlines()[4] + "\n", "has two rows for"),
        (lambda text: "", "is empty"),
    ],
)
def test_a_wrong_table_is_refused(
    sketch_of: Copy, change: Callable[[str], str], message: str
) -> None:
    root = sketch_of("ucmerced")
    table = root / "ucmerced" / LABEL_FILE
    replace(table, change(table.read_text()).encode())
    with pytest.raises(ArchiveError, match=message) as error:
        UCMercedAdapter(root, "train")
    assert str(table) in str(error.value)


@pytest.mark.parametrize("content", ["[]", '"x"', '{"%s": 3}', '{"%s": [1]}', "[" * 100_000])
def test_labels_of_another_form_are_refused(sketch_of: Copy, content: str) -> None:
    root = sketch_of("treesatai")
    first = TreeSatAIAdapter(root, "train").files[0].name
    labels = root / "treesatai" / "labels" / "TreeSatBA_v9_60m_multi_labels.json"
    replace(labels, content.replace("%s", first).encode())
    with pytest.raises(ArchiveError) as error:
        TreeSatAIAdapter(root, "train")
    assert str(labels) in str(error.value)


# Declarations.


class Labelled(AIDAdapter):
    """AID with the labels of a mistaken class."""

    label: np.ndarray[tuple[int, ...], np.dtype[np.generic]]

    def _read(self, index: int, with_labels: bool) -> Scene:
        return Scene(super()._read(index, False).image, labels=self.label)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (np.zeros(3, np.uint8), r"Labels are \(3,\) for 30 classes, for .*airport_1\.jpg"),
        (np.zeros((30, 1), np.uint8), r"Labels are \(30, 1\) for 30 classes"),
        (np.zeros(30, np.float32), "Labels are float32, not uint8"),
        (np.full(30, 2, np.uint8), "Labels are not 0 and 1, but up to 2"),
    ],
)
def test_labels_of_another_shape_are_refused(
    sketches: Path, label: np.ndarray[tuple[int, ...], np.dtype[np.generic]], message: str
) -> None:
    adapter = Labelled(sketches, "train")
    adapter.label = label
    with pytest.raises(ArchiveError, match=message):
        adapter.scene(0, with_labels=True)


def test_a_fault_of_the_adapter_is_told_from_a_damaged_file(
    sketches: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RSSCN7Adapter, "read_image", lambda *_: {"x": 0}["absent"])
    with pytest.raises(ArchiveError, match=r"if the file is sound, mend RSSCN7Adapter\._read"):
        RSSCN7Adapter(sketches, "train").scene(0)
