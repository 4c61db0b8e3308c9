import errno
import json
import multiprocessing
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.archives import allow_missing_files
from helpers.paths import ADAPTERS
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from rscl_bench import registry
from rscl_bench.errors import ArchiveError, ArtefactError, SpecError
from rscl_bench.spec import Source
from rscl_bench.tiles import cutting
from rscl_bench.tiles.packing import open_or_pack
from rscl_bench.tiles.store import TileStore, file_digest, verify
from rscl_bench.tiles.writer import StoreWriter

MASKED = f"{ADAPTERS}:Masked"
BANDS = ("a", "b", "c", "d")

Arrays = list[tuple[NDArray[np.uint16], NDArray[np.uint8]]]


def stores(cache: Path) -> list[Path]:
    return sorted(path.parent for path in (cache / "tiles").glob("[!.]*/manifest.json"))


def source(**changes: Any) -> Source:
    values: dict[str, Any] = {
        "dataset": MASKED,
        "split": "train",
        "bands": BANDS,
        "tile_size": 8,
        **changes,
    }
    return Source(**values)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    root = tmp_path / "data"
    registry.load("datasets", MASKED).write_sketch(root, np.random.default_rng(0))
    return root


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def archive(data: Path) -> Arrays:
    pairs = []
    for path in sorted((data / "masked").glob("*.npy")):
        with path.with_suffix(".mask").open("rb") as file:
            pairs.append((np.load(path), np.load(file)))
    return pairs


def cut_by_loops(data: Path, size: int) -> Arrays:
    tiles = []
    for image, mask in archive(data):
        for row in range(image.shape[0] // size):
            for column in range(image.shape[1] // size):
                window = np.s_[row * size : (row + 1) * size, column * size : (column + 1) * size]
                tiles.append((image[window], mask[window]))
    return tiles


def test_grid_cuts_whole_tiles_and_drops_the_rest(data: Path, cache: Path) -> None:
    store = open_or_pack(data, source(), cache, with_labels=True)
    expected = cut_by_loops(data, 8)
    assert len(store) == len(expected) == 2 * 3 + 1 + 2 * 1
    assert store.tiles.dtype == np.uint16
    assert np.array_equal(store.tiles, np.stack([tile for tile, _ in expected]))
    assert not store.tiles.flags.writeable
    assert store.classes == ("low", "middle", "high")
    assert store.shares is not None
    assert store.shares.dtype == np.float32
    for shares, (_, mask) in zip(store.shares, expected, strict=True):
        # The denominator includes undefined pixels (255).
        assert np.allclose(shares, [(mask == label).sum() / 64 for label in range(3)])


def test_labels_are_shares_above_min_share(data: Path, cache: Path) -> None:
    store = open_or_pack(data, source(), cache, with_labels=True)
    assert store.shares is not None
    min_share = float(store.shares[3, 1])
    labels = store.labels(min_share)
    assert labels.dtype == np.uint8
    assert labels[3, 1] == 0  # The share must exceed min_share.
    assert np.array_equal(labels == 1, store.shares > min_share)
    assert 0 < labels.mean() < 1


def test_tiles_of_tasks_carry_no_labels(data: Path, cache: Path) -> None:
    store = open_or_pack(data, source(), cache)
    assert store.shares is None
    assert store.classes == ()
    assert not (store.path / "shares.npy").exists()
    with pytest.raises(ArtefactError, match="holds no labels"):
        store.labels(0.1)


def test_whole_resizes_each_image(data: Path, cache: Path) -> None:
    store = open_or_pack(data, source(cut="whole", tile_size=6), cache, with_labels=True)
    assert store.tiles.shape == (3, 6, 6, 4)
    assert store.shares is not None
    for tile, shares, (image, mask) in zip(store.tiles, store.shares, archive(data), strict=True):
        for band in range(4):
            plane = Image.fromarray(image[:, :, band].astype(np.float32))
            resized = np.asarray(plane.resize((6, 6), Image.Resampling.BILINEAR))
            assert np.abs(tile[:, :, band] - resized).max() <= 0.5
        assert np.allclose(shares, [(mask == label).mean() for label in range(3)])


def test_bands_are_in_the_sources_order(data: Path, cache: Path) -> None:
    every = open_or_pack(data, source(), cache).tiles
    some = open_or_pack(data, source(bands=("d", "b")), cache).tiles
    assert np.array_equal(some, every[..., [3, 1]])


def test_statistics_equal_numpys(data: Path, cache: Path) -> None:
    store = open_or_pack(data, source(), cache)
    pixels = store.tiles.reshape(-1, 4).astype(np.float64)
    assert np.allclose(store.mean, pixels.mean(axis=0), rtol=1e-12)
    assert np.allclose(store.std, pixels.std(axis=0), rtol=1e-9)
    assert store.scale == 4095.0


def write(data: Path, number: int, image: NDArray[np.uint16]) -> Path:
    folder = data / "masked"
    np.save(folder / f"{number}.npy", image)
    with (folder / f"{number}.mask").open("wb") as file:
        np.save(file, np.zeros(image.shape[:2], np.uint8))
    return folder / f"{number}.npy"


def test_blank_tiles_are_counted_and_kept(data: Path, cache: Path) -> None:
    image = np.zeros((8, 24, 4), np.uint16)
    image[0, 9, 2] = 1  # one value in one band of the middle tile
    write(data, 7, image)
    store = open_or_pack(data, source(), cache)
    assert store.blank == 2
    assert len(store) == 12


def test_undeclared_class_in_a_mask_is_refused(data: Path, cache: Path) -> None:
    path = write(data, 7, np.ones((8, 8, 4), np.uint16))
    with path.with_suffix(".mask").open("wb") as file:
        np.save(file, np.full((8, 8), 3, np.uint8))
    with pytest.raises(ArchiveError, match=r"7\.npy holds class 3 where Masked has classes 0 to 2"):
        open_or_pack(data, source(), cache, with_labels=True)


def test_full_disk_leaves_no_file(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(StoreWriter, "add", full)
    with pytest.raises(ArtefactError, match=r"cannot be written.*No space left.*make room"):
        open_or_pack(data, source(), cache)
    assert list((cache / "tiles").iterdir()) == []


def test_tiles_are_packed_once(data: Path, cache: Path) -> None:
    reports: list[tuple[str, int, int]] = []
    first = open_or_pack(data, source(), cache, progress=lambda *args: reports.append(args))
    assert reports == [("packing masked train", scenes, 3) for scenes in (1, 2, 3)]
    second = open_or_pack(data, source(), cache, progress=lambda *args: reports.append(args))
    assert len(reports) == 3
    assert second.digest == first.digest
    assert stores(cache) == [first.path]


def test_every_choice_has_a_store(data: Path, cache: Path) -> None:
    choices = [
        source(),
        source(tile_size=4),
        source(bands=("a", "b")),
        source(bands=("b", "a")),
        source(cut="whole"),
    ]
    opened = [open_or_pack(data, choice, cache) for choice in choices]
    opened.append(open_or_pack(data, source(), cache, with_labels=True))
    assert len({store.path for store in opened}) == 6
    assert len({store.digest for store in opened}) == 6
    assert stores(cache) == sorted(store.path for store in opened)


def test_changed_archive_is_packed_again(data: Path, cache: Path) -> None:
    before = open_or_pack(data, source(), cache)
    write(data, 1, np.full((8, 8, 4), 77, np.uint16))
    after = open_or_pack(data, source(), cache)
    assert not before.path.exists()
    assert after.digest != before.digest
    assert (after.tiles == 77).all(axis=(1, 2, 3)).sum() == 1
    write(data, 5, np.zeros((8, 8, 4), np.uint16))
    last = open_or_pack(data, source(), cache)
    assert len(last) == len(after) + 1
    # Stores of the outdated archive are removed.
    assert list((cache / "tiles").iterdir()) == [last.path]


def test_changed_mask_is_packed_again(data: Path, cache: Path) -> None:
    before = open_or_pack(data, source(), cache, with_labels=True)
    with (data / "masked" / "1.mask").open("wb") as file:
        np.save(file, np.full((8, 8), 2, np.uint8))
    after = open_or_pack(data, source(), cache, with_labels=True)
    assert np.array_equal(after.tiles, before.tiles)
    assert after.digest != before.digest


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flip_bit, truncate, Path.unlink])
@pytest.mark.parametrize("file", ["tiles.raw", "shares.npy"])
def test_damaged_file_is_refused_by_name(data: Path, cache: Path, damage: Any, file: str) -> None:
    store = open_or_pack(data, source(), cache, with_labels=True)
    verify(store.path)
    damage(store.path / file)
    message = rf"{store.path / file} was changed since packing .* delete the folder {store.path}"
    with pytest.raises(ArtefactError, match=message):
        open_or_pack(data, source(), cache, with_labels=True)
    with pytest.raises(ArtefactError, match=message):
        verify(store.path)
    shutil.rmtree(store.path)  # The message asks for this.
    assert open_or_pack(data, source(), cache, with_labels=True).digest == store.digest


@pytest.mark.parametrize("content", [None, "", "[]", '{"format": 0}'])
def test_store_without_a_manifest_is_packed_again(
    data: Path, cache: Path, content: str | None
) -> None:
    store = open_or_pack(data, source(), cache)
    manifest = store.path / "manifest.json"
    if content is None:
        manifest.unlink()
    else:
        manifest.write_text(content)
    with pytest.raises(ArtefactError, match="no readable manifest"):
        verify(store.path)
    assert open_or_pack(data, source(), cache).digest == store.digest
    verify(store.path)


def test_manifest_describes_the_tiles(data: Path, cache: Path) -> None:
    store = open_or_pack(data, source(bands=("b", "a")), cache, with_labels=True)
    manifest = json.loads((store.path / "manifest.json").read_text())
    expected = {
        "dataset": "masked",
        "split": "train",
        "bands": ["b", "a"],
        "tile_size": 8,
        "dtype": "uint16",
        "unit": "count",
        "count": 9,
        "classes": ["low", "middle", "high"],
    }
    assert expected.items() <= manifest.items()
    assert sorted(manifest["digests"]) == ["shares.npy", "tiles.raw"]
    raw = np.fromfile(store.path / "tiles.raw", np.uint16).reshape(9, 8, 8, 2)
    assert np.array_equal(raw, store.tiles)


def test_tile_larger_than_an_image_is_refused_by_file(data: Path, cache: Path) -> None:
    name = data / "masked" / "1.npy"
    with pytest.raises(ArchiveError, match=rf"{name} is 8×8 pixels, smaller than one tile of 9"):
        open_or_pack(data, source(tile_size=9), cache)
    assert list((cache / "tiles").iterdir()) == []


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), np.uint16), r"1\.npy has 3 bands where Masked has 4"),
        (np.zeros((8, 8), np.uint16), r"1\.npy has shape \(8, 8\) where"),
        (np.zeros((8, 8, 4), np.uint8), r"1\.npy is uint8 where Masked is uint16"),
        (np.full((8, 8, 4), np.nan, np.float32), r"1\.npy is float32 .* in place of NaN"),
    ],
)
def test_unusable_image_is_refused_by_name(
    data: Path, cache: Path, image: NDArray[Any], message: str
) -> None:
    np.save(data / "masked" / "1.npy", image)
    with pytest.raises(ArchiveError, match=message):
        open_or_pack(data, source(), cache)
    assert list((cache / "tiles").iterdir()) == []


def test_truncated_and_missing_files_are_refused_by_name(data: Path, cache: Path) -> None:
    truncate(data / "masked" / "2.npy")
    with pytest.raises(ArchiveError, match=r"2\.npy cannot be read"):
        open_or_pack(data, source(), cache)
    (data / "masked" / "0.mask").unlink()
    allow_missing_files(data / "masked")
    with pytest.raises(ArchiveError, match=r"0\.mask does not exist"):
        open_or_pack(data, source(), cache, with_labels=True)
    with pytest.raises(ArchiveError, match="does not exist"):
        open_or_pack(data / "nowhere", source(), cache)


def test_unknown_band_is_refused(data: Path, cache: Path) -> None:
    with pytest.raises(SpecError, match="'nir'"):
        open_or_pack(data, source(bands=("nir",)), cache)


def test_unwritable_cache_is_refused(data: Path, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.touch()
    with pytest.raises(ArtefactError, match=r"is not writable .* set RSCL_CACHE"):
        open_or_pack(data, source(), occupied)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_packing_interrupted_before_a_journal_leaves_no_file(
    data: Path, cache: Path, error: type[BaseException]
) -> None:
    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == 2:
            raise error

    with pytest.raises(error):
        open_or_pack(data, source(), cache, progress=interrupt)
    assert list((cache / "tiles").iterdir()) == []
    assert len(open_or_pack(data, source(), cache)) == 9


def test_interrupted_repacking_keeps_the_old_store(data: Path, cache: Path) -> None:
    def interrupt(_what: str, _done: int, _total: int) -> None:
        raise KeyboardInterrupt

    store = open_or_pack(data, source(), cache)
    write(data, 1, np.full((8, 8, 4), 77, np.uint16))
    with pytest.raises(KeyboardInterrupt):
        open_or_pack(data, source(), cache, progress=interrupt)
    verify(store.path)
    assert list((cache / "tiles").iterdir()) == [store.path]


@pytest.mark.parametrize("repeat", range(10))
@pytest.mark.parametrize("outdated", [False, True])
def test_threads_packing_at_once(data: Path, cache: Path, outdated: bool, repeat: int) -> None:
    if outdated:
        open_or_pack(data, source(), cache)
        write(data, 1, np.full((8, 8, 4), repeat, np.uint16))
    together = threading.Barrier(2, timeout=20)
    opened: list[TileStore] = []

    def wait_for_the_other(_what: str, done: int, _total: int) -> None:
        if done == 3:
            together.wait()

    def pack() -> None:
        opened.append(open_or_pack(data, source(), cache, progress=wait_for_the_other))

    threads = [threading.Thread(target=pack) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 2
    assert opened[0].digest == opened[1].digest
    assert list((cache / "tiles").iterdir()) == [opened[0].path]


def pack_many(data: Path, cache: Path) -> None:
    for _ in range(6):
        open_or_pack(data, source(tile_size=2), cache, with_labels=True)


def test_processes_packing_at_once(data: Path, cache: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=pack_many, args=(data, cache)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    (folder,) = stores(cache)
    verify(folder)
    assert list((cache / "tiles").iterdir()) == [folder]


def test_open_store_outlives_its_folder(data: Path, cache: Path) -> None:
    store = open_or_pack(data, source(), cache)
    kept = store.tiles.copy()
    shutil.rmtree(store.path)
    assert np.array_equal(store.tiles, kept)


@given(
    seed=st.integers(0, 1000),
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(1, 4)),
    size=st.integers(1, 48),
)
def test_resizing_equals_pillow(seed: int, shape: tuple[int, int, int], size: int) -> None:
    rng = np.random.default_rng(seed)
    bytes_image = rng.integers(0, 256, shape, dtype=np.uint8)
    resized = cutting._resized(bytes_image, size)
    assert resized.shape == (size, size, shape[2])
    assert resized.dtype == np.uint8
    for band in range(shape[2]):
        plane = Image.fromarray(np.ascontiguousarray(bytes_image[:, :, band]))
        expected = np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR))
        assert np.array_equal(resized[:, :, band], expected)
    # With 16 bits the filter is the same, and rounds to half a count.
    words = bytes_image.astype(np.uint16) * 257
    fine = cutting._resized(words, size)
    assert fine.dtype == np.uint16
    assert np.abs(fine / 257 - resized).max() <= 1.01


def test_packing_leaves_the_archive_unchanged(data: Path, cache: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (data / "masked").iterdir())
    open_or_pack(data, source(), cache, with_labels=True)
    after = sorted((path, path.stat().st_mtime_ns) for path in (data / "masked").iterdir())
    assert before == after


def count_hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    hashed: list[Path] = []

    def digest(path: Path) -> str:
        hashed.append(path)
        return file_digest(path)

    monkeypatch.setattr("rscl_bench.tiles.store.file_digest", digest)
    return hashed


def test_digests_are_verified_only_if_a_file_may_have_changed(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed = count_hashed(monkeypatch)
    path = open_or_pack(data, source(), cache).path / "tiles.raw"
    open_or_pack(data, source(), cache)
    assert hashed == []
    path.write_bytes(path.read_bytes())
    for _ in range(2):
        open_or_pack(data, source(), cache)
    assert hashed == [path]
    (path.parent / "verified.json").write_text("damaged")
    open_or_pack(data, source(), cache)
    assert hashed == [path] * 2
    verify(path.parent)
    assert hashed == [path] * 3


def test_a_write_that_sets_the_mtime_back_is_detected(data: Path, cache: Path) -> None:
    path = open_or_pack(data, source(), cache).path / "tiles.raw"
    before = path.stat()
    with path.open("r+b") as file:
        byte = file.read(1)
        file.seek(0)
        file.write(bytes([byte[0] ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns
    assert path.stat().st_size == before.st_size
    for _ in range(2):  # A failed verification is not saved.
        with pytest.raises(ArtefactError, match="was changed since packing"):
            open_or_pack(data, source(), cache)


def test_a_read_only_store_is_verified_every_time(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = open_or_pack(data, source(), cache).path
    (path / "verified.json").unlink()

    def refuse(path: Path, _content: str | bytes) -> None:
        raise ArtefactError(f"{path} cannot be written (Read-only file system)")

    hashed = count_hashed(monkeypatch)
    monkeypatch.setattr("rscl_bench.tiles.store.write_atomic", refuse)
    for times_opened in range(1, 3):
        open_or_pack(data, source(), cache)
        assert len(hashed) == times_opened
