"""The contract of every dataset adapter, on sketch archives; and, where they are, on real ones."""

import csv
import json
import os
import shutil
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torchgeo.datasets import DatasetNotFoundError, Potsdam2D, TreeSatAI

from rscl_bench import registry
from rscl_bench.archives import files as archive
from rscl_bench.archives import potsdam, treesatai, ucmerced
from rscl_bench.archives.adapter import SKETCH_MARKER, DatasetAdapter
from rscl_bench.archives.aid import AID, AIDAdapter
from rscl_bench.archives.potsdam import PotsdamAdapter
from rscl_bench.archives.rsscn7 import RSSCN7, RSSCN7Adapter
from rscl_bench.archives.treesatai import TreeSatAIAdapter
from rscl_bench.archives.uavid import UAVid, UAVidAdapter
from rscl_bench.archives.ucmerced import UCMercedAdapter, UCMercedMultiLabel
from rscl_bench.archives.us3d import US3D, US3DAdapter
from rscl_bench.errors import ArchiveError, SpecError

NAMES = sorted(registry.BUILTIN["datasets"])
COUNTS = {
    ("aid", "train"): 240,
    ("potsdam", "train"): 24,
    ("potsdam", "test"): 14,
    ("potsdam", "paper-train"): 30,
    ("potsdam", "paper-val"): 2,
    ("rsscn7", "train"): 84,
    ("treesatai", "train"): 112,
    ("treesatai", "test"): 40,
    ("treesatai", "paper-train"): 96,
    ("treesatai", "paper-val"): 16,
    ("uavid", "train"): 8,
    ("uavid", "val"): 3,
    ("uavid", "test"): 1,
    ("ucmerced", "train"): 120,
    ("ucmerced", "val"): 40,
    ("ucmerced", "test"): 80,
    ("us3d", "train"): 6,
    ("us3d", "val"): 2,
}
SIZES = {
    "aid": (128, 128),
    "potsdam": (512, 512),
    "rsscn7": (128, 128),
    "treesatai": (304, 304),
    "uavid": (768, 1024),
    "ucmerced": (256, 256),
    "us3d": (1024, 1024),
}


def adapter_type(name: str) -> type[DatasetAdapter]:
    found: type[DatasetAdapter] = registry.load("datasets", name)
    return found


@pytest.fixture(scope="session")
def sketches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sketches")
    for name in NAMES:
        adapter_type(name).write_sketch(root, np.random.default_rng(0))
    return root


@pytest.fixture
def copy(sketches: Path, tmp_path: Path) -> Any:
    """Copy one sketch archive, to be damaged; hard links where no file is rewritten in place."""

    def make(name: str) -> Path:
        shutil.copytree(sketches / name, tmp_path / name, copy_function=os.link)
        return tmp_path

    return make


def rewrite(path: Path, pixels: NDArray[Any]) -> None:
    """Replace a file, without touching what is hard-linked to it."""
    path.unlink()
    if path.suffix == ".tif":
        archive.write_tiff(path, pixels)
    else:
        Image.fromarray(pixels.squeeze()).save(path)


def damage(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: int(len(content) * keep)])


# The contract.


@pytest.mark.parametrize(("name", "split"), COUNTS)
def test_count_shape_dtype(sketches: Path, name: str, split: str) -> None:
    adapter = adapter_type(name)(sketches, split)
    assert len(adapter) == len(adapter.files) == COUNTS[name, split]
    assert len(set(adapter.files)) == len(adapter.files)
    assert adapter.is_sketch
    scene = adapter.scene(0)
    assert scene.image.shape == (*SIZES[name], len(adapter.sensor.bands))
    assert scene.image.dtype == np.dtype(adapter.sensor.dtype)
    assert scene.labels is None
    assert scene.mask is None
    assert set(adapter.files) <= set(adapter.inputs())
    assert all(path.is_file() for path in adapter.inputs())
    assert not any(path.name == SKETCH_MARKER for path in adapter.inputs())


def test_every_split_is_covered() -> None:
    assert set(COUNTS) == {(name, s) for name in NAMES for s in adapter_type(name).splits}


@pytest.mark.parametrize("name", NAMES)
def test_bands_have_red_green_blue(name: str) -> None:
    sensor = adapter_type(name).sensor
    assert len(sensor.indices(("red", "green", "blue"))) == 3
    wavelengths = {band.name: band.wavelength_nm for band in sensor.bands}
    assert wavelengths["blue"] < wavelengths["green"] < wavelengths["red"]


@pytest.mark.parametrize("name", NAMES)
def test_labels_or_mask(sketches: Path, name: str) -> None:
    adapter = adapter_type(name)(sketches, adapter_type(name).splits[0])
    scene = adapter.scene(0, with_labels=True)
    assert (scene.labels is None) != (scene.mask is None)
    if scene.labels is not None:
        assert scene.labels.dtype == np.uint8
        assert scene.labels.shape == (len(adapter.classes),)
        assert set(np.unique(scene.labels)) <= {0, 1}
        assert scene.labels.any()
    if scene.mask is not None:
        assert scene.mask.dtype == np.uint8
        assert scene.mask.shape == scene.image.shape[:2]
        assert set(np.unique(scene.mask)) <= {*range(len(adapter.classes)), 255}
        assert (scene.mask == 255).mean() < 0.01


@pytest.mark.parametrize(("name", "enough"), [("ucmerced", 17), ("treesatai", 12)])
def test_sketch_labels_have_both_kinds(sketches: Path, name: str, enough: int) -> None:
    adapter = adapter_type(name)(sketches, "test")
    labels = [adapter.scene(i, with_labels=True).labels for i in range(len(adapter))]
    positives = np.stack([label for label in labels if label is not None]).sum(axis=0)
    assert ((positives > 0) & (positives < len(adapter))).sum() >= enough


@pytest.mark.parametrize("name", NAMES)
def test_band_order_is_the_files(copy: Any, name: str) -> None:
    adapter = adapter_type(name)(copy(name), adapter_type(name).splits[0])
    bands = len(adapter.sensor.bands)
    pixels = np.zeros((64, 64, bands), adapter.sensor.dtype)
    pixels[:] = 20 * np.arange(1, bands + 1)
    rewrite(adapter.files[0], pixels)
    image = adapter.scene(0).image
    tolerance = 3 if adapter.files[0].suffix == ".jpg" else 0
    assert np.abs(image.astype(int) - pixels.astype(int)).max() <= tolerance


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_truncated_file_is_refused_by_name(copy: Any, name: str, keep: float) -> None:
    adapter = adapter_type(name)(copy(name), adapter_type(name).splits[0])
    damage(adapter.files[1], keep)
    with pytest.raises(ArchiveError, match="cannot be read") as error:
        adapter.scene(1)
    assert str(adapter.files[1]) in str(error.value)
    assert adapter.source in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_wrong_band_count_is_refused_by_name(copy: Any, name: str) -> None:
    adapter = adapter_type(name)(copy(name), adapter_type(name).splits[0])
    rewrite(adapter.files[0], np.ones((64, 64, 1), adapter.sensor.dtype))
    with pytest.raises(ArchiveError, match="has 1 bands where") as error:
        adapter.scene(0)
    assert str(adapter.files[0]) in str(error.value)


@pytest.mark.parametrize("name", ["us3d", "potsdam", "treesatai", "ucmerced"])
@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_wrong_dtype_is_refused_by_name(copy: Any, name: str, dtype: str) -> None:
    adapter = adapter_type(name)(copy(name), adapter_type(name).splits[0])
    rewrite(adapter.files[0], np.ones((64, 64, len(adapter.sensor.bands)), dtype))
    with pytest.raises(ArchiveError, match=f"is {dtype} where") as error:
        adapter.scene(0)
    assert str(adapter.files[0]) in str(error.value)


@pytest.mark.parametrize("name", ["us3d", "potsdam", "uavid"])
def test_mask_of_another_size_is_refused(copy: Any, name: str) -> None:
    adapter = adapter_type(name)(copy(name), "train")
    rewrite(adapter.files[0], np.ones((64, 64, len(adapter.sensor.bands)), adapter.sensor.dtype))
    with pytest.raises(ArchiveError, match="The mask of"):
        adapter.scene(0, with_labels=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_file_is_named(copy: Any, name: str) -> None:
    root = copy(name)
    adapter = adapter_type(name)(root, adapter_type(name).splits[0])
    for path in (adapter.files[2], adapter.inputs()[-1]):
        held = path.read_bytes()
        path.unlink()
        with pytest.raises(ArchiveError, match="missing or partial") as error:
            adapter_type(name)(root, adapter.split)
        assert str(path) in str(error.value)
        path.write_bytes(held)


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_folder_says_what_to_do(tmp_path: Path, name: str) -> None:
    cls = adapter_type(name)
    for there in (False, True):
        if there:
            (tmp_path / cls.folder).mkdir()
        with pytest.raises(ArchiveError) as error:
            cls(tmp_path, cls.splits[0])
        for part in (cls.title, cls.source, cls.licence, cls.layout, str(tmp_path / cls.folder)):
            assert part in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_unknown_split_and_option_have_a_hint(sketches: Path, name: str) -> None:
    cls = adapter_type(name)
    with pytest.raises(SpecError, match="did you mean 'train'"):
        cls(sketches, "trian")
    with pytest.raises(SpecError, match="Unknown key in dataset"):
        cls(sketches, "train", {"clases": 1})


@pytest.mark.parametrize("name", NAMES)
def test_a_sketch_is_never_taken_for_real(copy: Any, name: str) -> None:
    root = copy(name)
    (root / name / SKETCH_MARKER).unlink()
    cls = adapter_type(name)
    if name in ("potsdam", "aid"):  # complete as they are; a real one is told by the marker alone
        assert not cls(root, "train").is_sketch
        return
    with pytest.raises(ArchiveError):
        cls(root, "paper-train" if name == "treesatai" else "train")


@pytest.mark.parametrize("name", NAMES)
def test_a_sketch_never_overwrites_an_archive(tmp_path: Path, name: str) -> None:
    cls = adapter_type(name)
    (tmp_path / cls.folder).mkdir()
    precious = tmp_path / cls.folder / "precious.tif"
    precious.write_bytes(b"real")
    with pytest.raises(ArchiveError, match="not overwritten"):
        cls.write_sketch(tmp_path, np.random.default_rng(0))
    assert precious.read_bytes() == b"real"


def test_an_unfinished_sketch_is_refused(copy: Any) -> None:
    root = copy("ucmerced")
    marker = root / "ucmerced" / SKETCH_MARKER
    marker.unlink()
    marker.write_text("")
    with pytest.raises(ArchiveError, match="not written to its end"):
        UCMercedAdapter(root, "train")


@pytest.mark.parametrize("cls", [RSSCN7Adapter, UAVidAdapter])
def test_sketches_are_deterministic_and_replace_each_other(
    sketches: Path, tmp_path: Path, cls: type[DatasetAdapter]
) -> None:
    cls.write_sketch(tmp_path, np.random.default_rng(1))
    cls.write_sketch(tmp_path, np.random.default_rng(0))
    for path in (sketches / cls.folder).rglob("*"):
        other = tmp_path / cls.folder / path.relative_to(sketches / cls.folder)
        assert path.is_dir() or path.read_bytes() == other.read_bytes()


# US3D.


def test_us3d_torchgeo_style(sketches: Path) -> None:
    dataset = US3D(sketches / "us3d", "val", checksum=True)
    sample = dataset[0]
    assert sample["image"].shape == (8, 1024, 1024)
    assert sample["image"].dtype == torch.float32
    assert sample["mask"].shape == (1024, 1024)
    assert sample["mask"].dtype == torch.int64
    assert sample["mask"][0, 0] == 255
    adapter = US3DAdapter(sketches, "val")
    image = np.moveaxis(sample["image"].numpy(), 0, 2)
    assert np.array_equal(image, adapter.scene(0).image)
    rgb = US3D(
        sketches / "us3d", "val", product="rgb", transforms=lambda s: {**s, "seen": s["mask"]}
    )
    assert rgb[0]["image"].shape == (3, 1024, 1024)
    assert "seen" in rgb[0]
    with pytest.raises(DatasetNotFoundError):
        US3D(sketches / "aid")
    with pytest.raises(AssertionError):
        US3D(sketches / "us3d", "test")


def test_us3d_splits_share_no_location(sketches: Path) -> None:
    names = {
        split: {path.name[:7] for path in US3DAdapter(sketches, split).files}
        for split in US3DAdapter.splits
    }
    assert not names["train"] & names["val"]
    held_out = sum(US3D.split_of(f"JAX_{i:03d}") == "val" for i in range(800))
    assert 70 < held_out < 130
    assert US3D.split_of("JAX_004") == US3D.split_of("JAX_004")


def test_us3d_cities(copy: Any) -> None:
    root = copy("us3d")
    with pytest.raises(ArchiveError, match="holds no image"):
        US3DAdapter(root, "train", {"cities": ["OMA"]})
    with pytest.raises(SpecError, match="'cities"):
        US3DAdapter(root, "train", {"cities": ["NYC"]})


def test_us3d_needs_masks_only_for_labels(copy: Any) -> None:
    root = copy("us3d")
    (root / "us3d" / SKETCH_MARKER).unlink()
    shutil.rmtree(root / "us3d" / "Track1-Truth")
    with pytest.raises(ArchiveError, match=r"holds 8 files .* where there are 2783"):
        US3DAdapter(root, "train")
    marker = root / "us3d" / SKETCH_MARKER
    marker.write_text(archive._MARKER_HEADER + "\n")
    adapter = US3DAdapter(root, "train")
    assert adapter.inputs() == adapter.files
    adapter.scene(0)
    with pytest.raises(ArchiveError, match="Track1-Truth"):
        adapter.scene(0, with_labels=True)


def test_us3d_unknown_code_is_refused(copy: Any) -> None:
    adapter = US3DAdapter(copy("us3d"), "train")
    mask = adapter.dataset.files[0]["mask"]
    rewrite(mask, np.full((1024, 1024, 1), 7, np.uint8))
    with pytest.raises(ArchiveError, match=r"codes \[7\]") as error:
        adapter.scene(0, with_labels=True)
    assert str(mask) in str(error.value)


def paged_tiff(pixels: NDArray[np.uint16]) -> bytes:
    """Return ``[H, W, 8]`` as tifffile writes it: H pages of W × 8, all data after the first."""
    pages, rows, columns = pixels.shape
    text = (json.dumps({"shape": list(pixels.shape)}) + "\0").encode()
    page_bytes = rows * columns * 2
    entries = 10
    directory = 2 + 12 * entries + 4
    text_at = 8 + directory
    data_at = (text_at + len(text) + 15) // 16 * 16
    rest_at = data_at + pages * page_bytes
    out = bytearray(b"II*\0" + struct.pack("<I", 8))
    for page in range(pages):
        at = rest_at + (page - 1) * directory if page else 8
        following = rest_at + page * directory if page + 1 < pages else 0
        tags = [
            (256, 4, 1, columns),
            (257, 4, 1, rows),
            (258, 3, 1, 16),
            (259, 3, 1, 1),
            (262, 3, 1, 1),
            (270, 2, len(text), text_at),
            (273, 4, 1, data_at + page * page_bytes),
            (277, 3, 1, 1),
            (278, 4, 1, rows),
            (279, 4, 1, page_bytes),
        ]
        assert len(out) == at
        out += struct.pack("<H", entries)
        out += b"".join(struct.pack("<HHII", *tag) for tag in tags) + struct.pack("<I", following)
        if page == 0:
            out += text
            out += b"\0" * (data_at - len(out)) + pixels.astype("<u2").tobytes()
    return bytes(out)


def test_us3d_reads_what_tifffile_wrote(copy: Any) -> None:
    adapter = US3DAdapter(copy("us3d"), "train")
    pixels = np.random.default_rng(0).integers(0, 2048, (40, 24, 8)).astype(np.uint16)
    content = paged_tiff(pixels)
    path = adapter.files[0]
    path.unlink()
    path.write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        with rasterio.open(path) as file:
            assert (file.count, file.width) == (1, 8), "GDAL misreads these files"
    assert np.array_equal(adapter.scene(0).image, pixels)
    for keep in (0.5, 0.9, 0.999):
        path.write_bytes(content[: int(len(content) * keep)])
        with pytest.raises(ArchiveError, match="cannot be read"):
            adapter.scene(0)


# UAVid.


def test_uavid_tiling_arithmetic() -> None:
    small, large = (2160 // 256) * (3840 // 256), (2160 // 256) * (4096 // 256)
    assert (small, large) == (120, 128)
    assert 130 * small + 70 * large == 24_560
    assert 40 * small + 30 * large == 8_640
    assert UAVid.sequences["train"] * len(UAVid.frames) == 130 + 70
    assert UAVid.sequences["val"] * len(UAVid.frames) == 40 + 30


def test_uavid_torchgeo_style(sketches: Path) -> None:
    dataset = UAVid(sketches / "uavid", "val", checksum=True)
    sample = dataset[0]
    assert sample["image"].shape == (3, 768, 1024)
    assert sample["image"].dtype == torch.float32
    assert sample["mask"].dtype == torch.int64
    assert int(sample["mask"].max()) < len(UAVid.classes)
    assert "mask" not in UAVid(sketches / "uavid", "test")[0]
    with pytest.raises(DatasetNotFoundError):
        UAVid(sketches / "aid")


def test_uavid_colours_are_decoded(copy: Any) -> None:
    adapter = UAVidAdapter(copy("uavid"), "val")
    colours = np.array([UAVid.colormap], np.uint8).repeat(4, axis=0)
    rewrite(adapter.files[0], np.zeros((4, 8, 3), np.uint8))
    rewrite(adapter.dataset.files[0]["mask"], colours)
    mask = adapter.scene(0, with_labels=True).mask
    assert mask is not None
    assert mask[0].tolist() == list(range(8))


def test_uavid_unknown_colour_is_refused(copy: Any) -> None:
    adapter = UAVidAdapter(copy("uavid"), "val")
    mask = adapter.dataset.files[0]["mask"]
    colours = np.zeros((768, 1024, 3), np.uint8)
    colours[5, 7] = (1, 2, 3)
    rewrite(mask, colours)
    with pytest.raises(ArchiveError, match=r"\(1, 2, 3\) at row 5, column 7") as error:
        adapter.scene(0, with_labels=True)
    assert str(mask) in str(error.value)


def test_uavid_test_labels_are_not_public(sketches: Path) -> None:
    with pytest.raises(SpecError, match="use 'val'"):
        UAVidAdapter(sketches, "test").scene(0, with_labels=True)


def test_uavid_sequences_are_in_number_order(sketches: Path, copy: Any) -> None:
    root = copy("uavid") / "uavid"
    folder = root / "uavid_train"
    (folder / "seq4").rename(folder / "seq10")
    (root / SKETCH_MARKER).unlink()
    names = [path.name for path in UAVid(root, "train").folders]
    assert names == ["seq1", "seq2", "seq3", "seq10"]
    with pytest.raises(ArchiveError, match=r"000200\.png and \d+ more files do not exist"):
        UAVidAdapter(root.parent, "train")


# Potsdam.


def test_potsdam_equals_torchgeo(sketches: Path) -> None:
    ours = PotsdamAdapter(sketches, "test")
    theirs = Potsdam2D(str(sketches / "potsdam"), "test")
    scene = ours.scene(3, with_labels=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        sample = theirs[3]
    assert len(ours) == len(theirs)
    assert np.array_equal(scene.image, np.moveaxis(sample["image"].numpy(), 0, 2))
    assert scene.mask is not None
    assert np.array_equal(scene.mask, sample["mask"].numpy())


def test_potsdam_paper_splits() -> None:
    train, val = potsdam._SPLITS["paper-train"], potsdam._SPLITS["paper-val"]
    assert len(train) == 30
    assert len(val) == 2
    assert not set(train) & set(val)
    tiles = (6000 // 256) ** 2
    assert (30 * tiles, 2 * tiles) == (15_870, 1_058)


def write_potsdam_mask(adapter: PotsdamAdapter, colours: NDArray[np.uint8]) -> None:
    rewrite(adapter.files[0], np.zeros((*colours.shape[:2], 4), np.uint8))
    rewrite(adapter.masks[0], colours)


def test_potsdam_colours_are_rounded(copy: Any) -> None:
    adapter = PotsdamAdapter(copy("potsdam"), "train")
    exact = np.array([Potsdam2D.colormap], np.int16)
    near = np.clip(np.concatenate([exact, exact + 30, exact - 30]), 0, 255).astype(np.uint8)
    near[1, 5] = (252, 255, 0)
    write_potsdam_mask(adapter, near)
    mask = adapter.scene(0, with_labels=True).mask
    assert mask is not None
    assert mask.tolist() == [list(range(6))] * 3


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 0, 255), (130, 0, 0)])
def test_potsdam_unknown_colours_are_bounded(copy: Any, colour: tuple[int, int, int]) -> None:
    adapter = PotsdamAdapter(copy("potsdam"), "train")
    colours = np.full((100, 100, 3), 255, np.uint8)
    colours[0, :90] = colour
    write_potsdam_mask(adapter, colours)
    mask = adapter.scene(0, with_labels=True).mask
    assert mask is not None
    assert (mask == 255).sum() == 90
    colours[1, :90] = colour
    write_potsdam_mask(adapter, colours)
    with pytest.raises(ArchiveError, match=r"1\.8% of the pixels") as error:
        adapter.scene(0, with_labels=True)
    assert str(adapter.masks[0]) in str(error.value)


# TreeSatAI.


def test_treesatai_equals_torchgeo(sketches: Path) -> None:
    ours = TreeSatAIAdapter(sketches, "train")
    theirs = TreeSatAI(str(sketches / "treesatai"), "train", sensors=("aerial",))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        sample = theirs[7]
    scene = ours.scene(7, with_labels=True)
    assert np.array_equal(scene.image, np.moveaxis(sample["image_aerial"].numpy(), 0, 2))
    assert scene.labels is not None
    assert np.array_equal(scene.labels, sample["label"].numpy())


def test_treesatai_paper_splits(copy: Any) -> None:
    root = copy("treesatai")
    first = {s: TreeSatAIAdapter(root, s).files for s in ("paper-train", "paper-val", "train")}
    assert not set(first["paper-train"]) & set(first["paper-val"])
    assert set(first["paper-train"]) | set(first["paper-val"]) == set(first["train"])
    listing = root / "treesatai" / "train_filenames.lst"
    names = listing.read_text().split()
    listing.unlink()
    listing.write_text("\r\n".join(reversed(names)))
    assert TreeSatAIAdapter(root, "paper-val").files == first["paper-val"]


def test_treesatai_real_paper_split_wants_its_count(copy: Any) -> None:
    root = copy("treesatai")
    (root / "treesatai" / SKETCH_MARKER).unlink()
    with pytest.raises(ArchiveError, match=r"lists 112 files .* at least 16000"):
        TreeSatAIAdapter(root, "paper-val")


def test_treesatai_paper_counts_of_a_full_list(sketches: Path) -> None:
    adapter = TreeSatAIAdapter(sketches, "train")
    names = [f"{i}.tif" for i in range(45_337)]
    chosen = {}
    for split in ("paper-train", "paper-val"):
        adapter.split = split
        adapter.root = Path("/nowhere")  # no marker: a real archive
        chosen[split] = adapter._paper_subset(names)
    assert {s: len(set(c)) for s, c in chosen.items()} == treesatai._PAPER_COUNTS
    assert not set(chosen["paper-train"]) & set(chosen["paper-val"])


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "not valid JSON"), ("{}", "no labels for"), ('{"%s": [["Palm", 1.0]]}', "'Palm'")],
)
def test_treesatai_bad_labels_are_refused(copy: Any, content: str, message: str) -> None:
    root = copy("treesatai")
    labels = root / "treesatai" / "labels" / "TreeSatBA_v9_60m_multi_labels.json"
    first = TreeSatAIAdapter(root, "train").files[0].name
    labels.unlink()
    labels.write_text(content.replace("%s", first))
    with pytest.raises(ArchiveError, match=message):
        TreeSatAIAdapter(root, "train")


# UC Merced.


def test_ucmerced_stored_split_regenerates() -> None:
    with ucmerced.SPLIT_FILE.open(newline="") as file:
        rows = [(row["name"], row["split"]) for row in csv.DictReader(file)]
    assert rows == ucmerced.generate_split()
    assert [name for name, _ in rows] == sorted(name for name, _ in rows)
    splits = [split for _, split in rows]
    assert {s: splits.count(s) for s in set(splits)} == {"train": 1000, "val": 300, "test": 800}


def test_ucmerced_torchgeo_style(sketches: Path) -> None:
    dataset = UCMercedMultiLabel(sketches / "ucmerced", "val", checksum=True)
    sample = dataset[0]
    assert sample["image"].shape == (3, 256, 256)
    assert sample["image"].dtype == torch.float32
    assert sample["label"].shape == (17,)
    assert sample["label"].dtype == torch.int64
    with pytest.raises(DatasetNotFoundError):
        UCMercedMultiLabel(sketches / "aid")


def test_ucmerced_keeps_the_true_size(copy: Any) -> None:
    adapter = UCMercedAdapter(copy("ucmerced"), "train")
    rewrite(adapter.files[0], np.ones((247, 253, 3), np.uint8))
    assert adapter.scene(0).image.shape == (247, 253, 3)


def test_ucmerced_real_archive_wants_every_image(copy: Any) -> None:
    root = copy("ucmerced")
    (root / "ucmerced" / SKETCH_MARKER).unlink()
    with pytest.raises(ArchiveError, match="has no row for agricultural"):
        UCMercedAdapter(root, "val")


@pytest.mark.parametrize(
    ("old", "new"), [("airplane\t", "aeroplane\t"), ("\t1\n", "\t2\n"), ("\t1\n", "\n")]
)
def test_ucmerced_bad_table_is_refused(copy: Any, old: str, new: str) -> None:
    root = copy("ucmerced")
    table = root / "ucmerced" / UCMercedMultiLabel.label_file
    text = table.read_text()
    table.unlink()
    table.write_text(text.replace(old, new, 1))
    with pytest.raises(ArchiveError, match=r"LandUse_Multilabeled\.txt has"):
        UCMercedAdapter(root, "train")


# AID and RSSCN7.


def test_scene_archives_torchgeo_style(sketches: Path) -> None:
    dataset = AID(sketches / "aid", ("Beach", "Airport"), checksum=True)
    assert len(dataset) == 16
    sample = dataset[8]
    assert sample["image"].shape == (3, 128, 128)
    assert sample["label"].item() == AID.classes.index("Beach")
    assert len(RSSCN7(sketches / "rsscn7")) == 84
    with pytest.raises(DatasetNotFoundError):
        RSSCN7(sketches / "aid")


def test_aid_classes_option(sketches: Path) -> None:
    adapter = AIDAdapter(sketches, "train", {"classes": ["Pond", "Airport"]})
    assert [path.parent.name for path in adapter.files] == ["Airport"] * 8 + ["Pond"] * 8
    label = adapter.scene(8, with_labels=True).labels
    assert label is not None
    assert label.sum() == 1
    assert label[AID.classes.index("Pond")] == 1
    with pytest.raises(SpecError, match="did you mean 'Airport'"):
        AIDAdapter(sketches, "train", {"classes": ["Airprot"]})
    with pytest.raises(SpecError, match="classes"):
        AIDAdapter(sketches, "train", {"classes": []})


def test_aid_is_in_number_order_and_without_gap(copy: Any) -> None:
    root = copy("aid")
    adapter = AIDAdapter(root, "train", {"classes": ["Airport"]})
    assert [path.name for path in adapter.files] == [f"airport_{i}.jpg" for i in range(1, 9)]
    (root / "aid" / SKETCH_MARKER).unlink()
    adapter.files[3].unlink()
    with pytest.raises(ArchiveError, match=r"airport_4\.jpg does not exist"):
        AIDAdapter(root, "train")


def test_rsscn7_real_archive_wants_every_image(copy: Any) -> None:
    root = copy("rsscn7")
    (root / "rsscn7" / SKETCH_MARKER).unlink()
    with pytest.raises(ArchiveError, match=r"a013\.jpg and 387 more files do not exist"):
        RSSCN7Adapter(root, "train")


# What the readers rely on.


def test_truncated_pictures_are_never_loaded() -> None:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


# Real archives.


@pytest.fixture(scope="module")
def real() -> Path:
    value = os.environ.get("RSCL_DATA_ROOT")
    if not value:
        pytest.skip("RSCL_DATA_ROOT is not set: no real archives to read")
    return Path(value)


def real_adapter(root: Path, cls: type[DatasetAdapter], split: str) -> DatasetAdapter:
    if not (root / cls.folder).is_dir():
        pytest.skip(f"RSCL_DATA_ROOT has no folder {cls.folder}")
    return cls(root, split)


def test_real_ucmerced(real: Path) -> None:
    splits = {s: real_adapter(real, UCMercedAdapter, s) for s in UCMercedAdapter.splits}
    assert {s: len(a) for s, a in splits.items()} == {"train": 1000, "val": 300, "test": 800}
    assert len({path for a in splits.values() for path in a.files}) == 2100
    assert not splits["train"].is_sketch
    positives = {}
    for split, adapter in splits.items():
        assert isinstance(adapter, UCMercedAdapter)
        labels = np.stack([adapter.dataset.labels[path.stem] for path in adapter.files])
        positives[split] = labels.sum(axis=0)
        assert (positives[split] > 0).all(), f"{split} has no positive of some label"
    total = sum(positives.values())
    # As counted in the public table of labels, in the order of the classes.
    counts = [100, 718, 691, 886, 115, 105, 100, 103, 975, 102, 1300, 294, 100, 102, 100, 1009, 203]
    assert total.tolist() == counts
    scene = splits["test"].scene(0, with_labels=True)
    assert scene.image.shape[2] == 3


def test_real_aid(real: Path) -> None:
    adapter = real_adapter(real, AIDAdapter, "train")
    if len(adapter) not in (4020, 10_000):
        pytest.fail(f"AID has {len(adapter)} images, neither 4,020 nor 10,000")
    assert adapter.scene(0).image.ndim == 3


def test_real_rsscn7(real: Path) -> None:
    adapter = real_adapter(real, RSSCN7Adapter, "train")
    assert len(adapter) == 2800
    assert adapter.scene(2799).image.ndim == 3
