"""Samples of torch datasets, written as a folder that the dataset `folder` reads."""

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.folders import noise
from PIL import Image
from torch.utils.data import Dataset, IterableDataset

import rscl_bench as rb
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.errors import ArchiveError, RsclError, SpecError

PIXELS = noise("sample", (6, 5, 3))
TENSOR = torch.from_numpy(np.moveaxis(PIXELS, 2, 0).copy())
MASK = torch.tensor(noise("mask", (6, 5)) % 3).where(torch.eye(6)[:, :5] == 0, 255)
CLASSES = ["a", "b", "c"]


class Samples(Dataset[Any]):
    """Samples in memory, which counts how often each is read."""

    def __init__(self, items: Sequence[Any]):
        self.items, self.read = items, [0] * len(items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.read[index] += 1
        return self.items[index]


def written(data: Path, *items: Any, classes: Sequence[str] = CLASSES, **more: Any) -> Any:
    arguments: dict[str, Any] = {"sensor": "rgb8", "verbose": False, **more}
    return rb.write_dataset(
        "mine", {"train": Samples(items)}, data_root=data, classes=classes, **arguments
    )


def opened(data: Path, named: dict[str, Any], split: str = "train") -> DatasetAdapter:
    return adapter_class(named["dataset"], named["options"])(data, split, named["options"])


@pytest.mark.parametrize(
    "image", [TENSOR, TENSOR.float(), TENSOR.to(torch.int64), Image.fromarray(PIXELS)]
)
@pytest.mark.parametrize("form", ["alone", "pair", "dictionary"])
def test_an_image_keeps_its_values(tmp_path: Path, image: Any, form: str) -> None:
    item = {"alone": image, "pair": (image, 1), "dictionary": {"image": image, "label": 1}}[form]
    classes = [] if form == "alone" else CLASSES
    scene = opened(tmp_path, written(tmp_path, item, classes=classes)).scene(0, bool(classes))
    assert scene.image.dtype == np.uint8
    assert np.array_equal(scene.image, PIXELS)
    assert scene.labels is None or scene.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        (2, [0, 0, 1]),
        (torch.tensor(0), [1, 0, 0]),
        (torch.tensor([1]), [0, 1, 0]),
        (torch.tensor([1, 0, 1]), [1, 0, 1]),
        (torch.tensor([0.0, 0.0, 0.0]), [0, 0, 0]),
        (np.array([True, False, True]), [1, 0, 1]),
    ],
)
def test_labels_are_classes_or_several(tmp_path: Path, label: Any, expected: list[int]) -> None:
    adapter = opened(tmp_path, written(tmp_path, (TENSOR, label)))
    labels = adapter.scene(0, with_labels=True).labels
    assert labels is not None
    assert labels.tolist() == expected
    assert adapter.classes == tuple(CLASSES)


@pytest.mark.parametrize("mask", [MASK, MASK[None].long()])
def test_masks_are_kept(tmp_path: Path, mask: torch.Tensor) -> None:
    adapter = opened(tmp_path, written(tmp_path, {"image": TENSOR, "mask": mask}))
    assert np.array_equal(adapter.scene(0, with_labels=True).mask, MASK)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (TENSOR, "Sample 0 of split 'train' has no label; give no classes"),
        ((TENSOR, 1, 2), "has 3 parts; give"),
        ({"picture": TENSOR}, r"has the keys \['picture'\] and no 'image'"),
        ({"image": TENSOR, "label": 1, "mask": MASK}, "has a label and a mask; leave one out"),
        ((TENSOR[:2], 1), r"shape \(2, 6, 5\) where sensor rgb8 has 3 bands; give tensors \[3,"),
        (
            (TENSOR / 255, 1),
            r"no whole number from 0 to 255; give the stored values",
        ),
        ((TENSOR.float() - 1000, 1), "holds the value -.*, which is no whole number"),
        ((TENSOR * torch.nan, 1), "holds the value nan"),
        ((TENSOR, 3), "has class 3 where 3 classes are named"),
        ((TENSOR, -1), "The label of .* holds the value -1"),
        ((TENSOR, torch.tensor([1, 0])), r"has labels \(2,\) up to 1 where 3 numbers of 0 and 1"),
        ((TENSOR, MASK[:4]), r"has a mask \(4, 5\) for an image \(6, 5\)"),
        ((TENSOR, MASK + 3), "which is no whole number|has class"),
        ((TENSOR, "b"), "holds str where a tensor or a number is expected"),
        ((TENSOR, torch.zeros(1, 2, 3, 4)), r"has a label of shape \(1, 2, 3, 4\)"),
    ],
)
def test_another_sample_is_refused(tmp_path: Path, item: Any, message: str) -> None:
    with pytest.raises(ArchiveError, match=message):
        written(tmp_path, item)
    assert not (tmp_path / "mine").exists()
    assert list(tmp_path.iterdir()) == []


def test_samples_of_two_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"000000\.npy has labels and .*000001\.npy has a mask"):
        written(tmp_path, (TENSOR, 1), (TENSOR, MASK))


class Endless(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield TENSOR


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"splits": {"train": Endless()}}, "has no length or no index; give a map-style dataset"),
        ({"splits": {"train": Samples([])}}, "The dataset of split 'train' is empty"),
        ({"splits": {}}, "should have at least 1 item"),
        ({"name": "../x"}, "is no path below a folder"),
        ({"sensor": "rgb"}, "Unknown sensor 'rgb'"),
        ({"classes": ["a", "a"]}, "'a' stands there twice"),
        ({"data_root": None}, "Dataset 'mine' needs a folder: give data_root"),
    ],
)
def test_a_wrong_argument_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, Any], message: str
) -> None:
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    splits = {"train": Samples([TENSOR])}
    right: dict[str, Any] = {"name": "mine", "splits": splits, "data_root": tmp_path}
    right |= {"sensor": "rgb8", "verbose": False, **arguments}
    with pytest.raises(RsclError, match=message) as error:
        rb.write_dataset(right.pop("name"), right.pop("splits"), **right)
    assert isinstance(error.value, SpecError)


def test_samples_are_read_once_and_equal_ones_change_nothing(tmp_path: Path) -> None:
    items = [(TENSOR, number % 3) for number in range(5)]
    data = Samples(items)
    named = rb.write_dataset(
        "mine", {"train": data}, data_root=tmp_path, sensor="rgb8", classes=CLASSES, verbose=False
    )
    assert data.read == [1] * 5
    before = {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.rglob("*.*")}
    assert written(tmp_path, *items) == named
    assert {p: (p.stat().st_mtime_ns, p.stat().st_ino) for p in tmp_path.rglob("*.*")} == before
    with pytest.raises(ArchiveError, match=r"mine holds other samples: labels\.csv differs; del"):
        written(tmp_path, *items[:4], (TENSOR, 2))
    with pytest.raises(ArchiveError, match=r"mine holds other samples: images/train/000005\.npy"):
        written(tmp_path, *items, (TENSOR, 2))


def test_bytes_of_a_file_are_those_of_the_format(tmp_path: Path) -> None:
    """Equal samples have equal identities on every machine and in every version."""
    written(tmp_path, TENSOR, classes=[])
    content = (tmp_path / "mine" / "images" / "train" / "000000.npy").read_bytes()
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (6, 5, 3), }"
    header += b" " * (128 - 10 - len(header) - 1) + b"\n"
    expected = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + PIXELS.tobytes()
    assert sha256(content).digest() == sha256(expected).digest()


def test_splits_are_folders(tmp_path: Path) -> None:
    splits = {"train": Samples([TENSOR]), "test": Samples([TENSOR, TENSOR])}
    named = rb.write_dataset("a/b", splits, data_root=tmp_path, sensor="rgb8", verbose=False)
    assert [len(opened(tmp_path, named, split)) for split in ("train", "test")] == [1, 2]
