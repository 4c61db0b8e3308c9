"""What stands for tiles in a run's identity, and when a packed store is taken."""

import json
import os
import shutil
import stat
import subprocess
import sys
import textwrap
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import rasterio
from helpers.archives import allow_missing_files
from helpers.paths import ADAPTERS
from PIL import Image

from rscl_bench import registry
from rscl_bench.archives.adapter import Scene
from rscl_bench.archives.uavid import UAVidAdapter
from rscl_bench.archives.us3d import US3DAdapter
from rscl_bench.canonical import canonical_json
from rscl_bench.errors import ArchiveError, ArtefactError
from rscl_bench.spec import Source
from rscl_bench.tiles import workers, writer
from rscl_bench.tiles.packing import open_or_pack
from rscl_bench.tiles.store import read_manifest

TOY = f"{ADAPTERS}:Toy"
MASKED = f"{ADAPTERS}:Masked"
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")


@pytest.fixture
def data(toy_data: Path, tmp_path: Path) -> Path:
    shutil.copytree(toy_data, tmp_path / "data")
    registry.load("datasets", MASKED).write_sketch(tmp_path / "data", np.random.default_rng(0))
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def toy(**changes: Any) -> Source:
    return Source(**{"dataset": TOY, "split": "train", "tile_size": 24, **changes})


def masked(**changes: Any) -> Source:
    bands = ("a", "b", "c", "d")
    return Source(
        **{"dataset": MASKED, "split": "train", "tile_size": 8, "bands": bands, **changes}
    )


def stores(cache: Path) -> list[Path]:
    return sorted((cache / "tiles").glob("[!.]*"))


def not_packing(what: str, _done: int, _total: int) -> None:
    assert not what.startswith("packing"), what


# The digest


def test_digest_follows_its_definition(data: Path, cache: Path) -> None:
    store = open_or_pack(data, masked(bands=("c", "a")), cache, with_labels=True)
    files = {
        f"{number}.{suffix}": sha256((data / f"masked/{number}.{suffix}").read_bytes()).hexdigest()
        for number in range(3)
        for suffix in ("npy", "mask")
    }
    described = {
        "dataset": "masked",
        "reader": {
            "class": "Masked",
            "version": 1,
            "code": sha256(sha256(ADAPTERS.read_bytes()).hexdigest().encode()).hexdigest(),
            "nodata": "fill",
        },
        "sensor": {
            "bands": [{"name": name, "wavelength_nm": 500.0} for name in "abcd"],
            "unit": "count",
            "dtype": "uint16",
            "scale": 4095.0,
        },
        "split": "train",
        "options": {},
        "bands": ["c", "a"],
        "tile_size": 8,
        "cut": "grid",
        "labels": True,
        "classes": ["low", "middle", "high"],
        "files": [list(pair) for pair in sorted(files.items())],
        "skipped": [],
    }
    assert store.source_digest == sha256(canonical_json(described)).hexdigest()
    manifest = read_manifest(store.path)
    assert manifest is not None
    assert {name: digest for name, (_, digest) in manifest["files"].items()} == files


def test_pixel_digest_is_that_of_earlier_versions(data: Path, cache: Path) -> None:
    """Records of format 2 hold these digests, so that equal pixels can be seen."""
    store = open_or_pack(data, masked(tile_size=4), cache, with_labels=True)
    described = {
        "format": 1,
        "dataset": "masked",
        "split": "train",
        "options": {},
        "bands": ["a", "b", "c", "d"],
        "tile_size": 4,
        "cut": "grid",
        "labels": True,
        "count": len(store),
        "classes": ["low", "middle", "high"],
        "scale": 4095.0,
        "unit": "count",
        "dtype": "uint16",
        "digests": {
            name: sha256((store.path / name).read_bytes()).hexdigest()
            for name in ("shares.npy", "tiles.raw")
        },
    }
    assert store.digest == sha256(canonical_json(described)).hexdigest()


def test_two_decoders_give_one_identity_and_two_pixel_digests(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_or_pack(data, toy(), cache)
    adapter = registry.load("datasets", TOY)
    read = adapter._read

    def other_decoder(self: Any, index: int, with_labels: bool) -> Scene:
        image = read(self, index, with_labels).image.copy()
        image[3, 5] ^= 1
        return Scene(image)

    monkeypatch.setattr(adapter, "_read", other_decoder)
    second = open_or_pack(data, toy(), cache.with_name("other"))
    assert first.source_digest == second.source_digest
    assert first.digest != second.digest


def add_trailer(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


def rename(path: Path) -> None:
    path.rename(path.with_name("020.png"))


def compress_anew(path: Path) -> None:
    with Image.open(path) as image:
        pixels = np.asarray(image)
    Image.fromarray(pixels).save(path, compress_level=0)


@pytest.mark.parametrize("change", [add_trailer, rename, compress_anew, Path.unlink])
def test_a_changed_source_file_gives_another_identity(
    data: Path, cache: Path, change: Callable[[Path], None]
) -> None:
    before = open_or_pack(data, toy(), cache)
    allow_missing_files(data / "toy")
    change(data / "toy" / "train" / "019.png")
    after = open_or_pack(data, toy(), cache)
    assert before.source_digest != after.source_digest
    # Trailer, name and compression leave the pixels as they are.
    assert (before.digest == after.digest) == (change is not Path.unlink)


def test_other_places_and_times_give_the_same_identity(data: Path, tmp_path: Path) -> None:
    moved = tmp_path / "other" / "root"
    shutil.copytree(data, moved, copy_function=shutil.copyfile)
    for path in moved.rglob("*.png"):
        os.utime(path, ns=(7, 7))
    first = open_or_pack(data, toy(), tmp_path / "one")
    second = open_or_pack(moved, toy(), tmp_path / "two")
    assert first.source_digest == second.source_digest
    assert first.path.name == second.path.name
    files = ("manifest.json", "tiles.raw")
    for name in files:
        assert (first.path / name).read_bytes() == (second.path / name).read_bytes()


def test_every_choice_is_part_of_the_identity(data: Path, cache: Path) -> None:
    choices = [
        masked(),
        masked(tile_size=4),
        masked(bands=("a", "b")),
        masked(bands=("b", "a")),
        masked(cut="whole"),
    ]
    opened = [open_or_pack(data, choice, cache) for choice in choices]
    opened.append(open_or_pack(data, masked(), cache, with_labels=True))
    opened += [open_or_pack(data, toy(split=split), cache) for split in ("train", "val")]
    assert len({store.source_digest for store in opened}) == len(opened)


def test_masks_are_part_of_the_identity_of_labelled_tiles_only(data: Path, cache: Path) -> None:
    def digests(cache: Path) -> tuple[str, str]:
        plain, labelled = (open_or_pack(data, masked(), cache, labels) for labels in (False, True))
        return plain.source_digest, labelled.source_digest

    plain, labelled = digests(cache)
    with (data / "masked" / "1.mask").open("wb") as file:
        np.save(file, np.full((8, 8), 2, np.uint8))
    after = digests(cache)
    assert after[0] == plain
    assert after[1] != labelled


class Opened:
    """Collects the paths that Python or GDAL opens; an audit hook cannot be removed."""

    paths: ClassVar[set[str]] = set()

    @classmethod
    def watch(cls, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[0], str | bytes):
            cls.paths.add(os.fsdecode(arguments[0]))


@pytest.fixture(scope="module")
def opened() -> set[str]:
    sys.addaudithook(Opened.watch)
    return Opened.paths


@pytest.mark.parametrize("dataset", ["ucmerced", "treesatai", "us3d", "uavid", "potsdam", "aid"])
def test_every_opened_file_is_a_source_file(
    sketches: Path,
    cache: Path,
    opened: set[str],
    monkeypatch: pytest.MonkeyPatch,
    dataset: str,
) -> None:
    """Every file that is opened to read a split is hashed, and no other."""
    opening = rasterio.open

    def watched(path: Path, *arguments: Any, **options: Any) -> Any:
        opened.add(str(path))
        return opening(path, *arguments, **options)

    monkeypatch.setattr(rasterio, "open", watched)
    adapter = registry.load("datasets", dataset)
    split = {"ucmerced": "val", "us3d": "val", "uavid": "val", "aid": "train"}.get(dataset, "test")
    # The marker of a sketch, and the list of the other split, are compared and give no value.
    checks = {"SKETCH", "train_filenames.lst"}
    for with_labels in (False, True):
        opened.clear()
        archive = adapter(sketches, split)
        for index in range(len(archive)):
            archive.scene(index, with_labels)
        paths = (Path(path) for path in opened)
        below = [path for path in paths if archive.root in path.parents and path.is_file()]
        source = first_band(adapter, split)
        manifest = read_manifest(open_or_pack(sketches, source, cache, with_labels).path)
        assert manifest is not None
        names = {archive.canonical_path(path) for path in below if path.name not in checks}
        assert set(manifest["files"]) == names


@pytest.mark.parametrize("count", [1, 2])
def test_workers_and_interruptions_give_the_same_digest(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    whole = open_or_pack(data, masked(), cache.with_name("whole"), with_labels=True)
    monkeypatch.setattr(workers, "WORTH_WORKERS", 0)
    monkeypatch.setattr(workers, "BATCH_BYTES", 0)
    monkeypatch.setattr(workers, "usable_cores", lambda: count)
    monkeypatch.setattr(writer, "JOURNAL_SECONDS", 0)

    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_or_pack(data, masked(), cache, True, interrupt)
    resumed = open_or_pack(data, masked(), cache, True)
    assert resumed.source_digest == whole.source_digest
    assert read_manifest(resumed.path) == read_manifest(whole.path)


def test_skipped_images_are_part_of_the_identity(data: Path, cache: Path) -> None:
    whole = open_or_pack(data, toy(), cache)
    (data / "toy" / "train" / "003.png").write_bytes(b"no image")
    skipping = open_or_pack(data, toy(), cache, on_bad_tile="skip")
    manifest = read_manifest(skipping.path)
    assert manifest is not None
    assert manifest["skipped"] == ["train/003.png"]
    assert manifest["files"]["train/003.png"] == [8, sha256(b"no image").hexdigest()]
    assert skipping.source_digest != whole.source_digest


def test_layouts_of_one_archive_have_one_identity(
    sketch_of: Callable[[str], Path], tmp_path: Path
) -> None:
    root, adapters = sketch_of("us3d"), {"us3d": US3DAdapter, "uavid": UAVidAdapter}
    sketch_of("uavid")
    before = {
        name: open_or_pack(root, first_band(adapter, "val"), tmp_path / "one", with_labels=True)
        for name, adapter in adapters.items()
    }
    for name in adapters:
        allow_missing_files(root / name)
    (root / "us3d" / "Track1-MSI-1").rename(root / "us3d" / "Track1-MSI")
    inner = root / "uavid" / "uavid_v1.5_official_release_image"
    inner.mkdir()
    for split in ("train", "val", "test"):
        (root / "uavid" / f"uavid_{split}").rename(inner / f"uavid_{split}")
    for name, adapter in adapters.items():
        source = first_band(adapter, "val")
        after = open_or_pack(root, source, tmp_path / "two", with_labels=True)
        assert after.source_digest == before[name].source_digest


def first_band(adapter: Any, split: str) -> Source:
    band = adapter.sensor.bands[0].name
    return Source(dataset=adapter.name, split=split, bands=(band,), tile_size=8, cut="whole")


# The key of a store

ADAPTER = """
from pathlib import Path
import numpy as np
from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.sensors import Band, Sensor

class Own(DatasetAdapter):
    name = "own"
    folder = "own"
    title = "Own"
    sensor = Sensor("s", (Band("a", 500.0), Band("b", 600.0)), "count", "uint8", 255.0, 1.0)
    splits = ("train",)
    source = "here"
    licence = "MIT"
    layout = "NUMBER.npy"

    def _list_files(self):
        return sorted(self.root.glob("*.npy"))

    def _read(self, index, with_labels):
        return Scene(np.load(self.files[index]))

    @classmethod
    def _draw_sketch(cls, root, rng):
        for number in range(3):
            np.save(root / f"{number}.npy", rng.integers(0, 256, (8, 8, 2), dtype=np.uint8))

class Other(Own):
    def _read(self, index, with_labels):
        return Scene(np.load(self.files[index]) // 2)
"""


def packed_by(code: str, folder: Path, name: str = "Own") -> dict[str, Any]:
    """Write an adapter's file, and pack its sketch in a new process."""
    (folder / "own.py").write_text(code)
    script = textwrap.dedent(
        """
        import json, sys
        from pathlib import Path
        import numpy as np
        from rscl_bench import registry
        from rscl_bench.spec import Source
        from rscl_bench.tiles.packing import open_or_pack
        folder, reference = Path(sys.argv[1]), sys.argv[2]
        adapter = registry.load("datasets", reference)
        if not (folder / "data").is_dir():
            adapter.write_sketch(folder / "data", np.random.default_rng(0))
        source = Source(dataset=reference, split="train", bands=("a",), tile_size=8)
        store = open_or_pack(folder / "data", source, folder / "cache")
        print(json.dumps({"path": str(store.path), "sum": int(store.tiles.astype(int).sum()),
            "scale": store.scale, "digest": store.source_digest}))
        """
    )
    reference = f"{folder / 'own.py'}:{name}"
    arguments = [sys.executable, "-c", script, str(folder), reference]
    ended = subprocess.run(arguments, check=True, capture_output=True)
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ('Band("a", 500.0), Band("b", 600.0)', 'Band("b", 600.0), Band("a", 500.0)', "sum"),
        ("Scene(np.load(self.files[index]))", "Scene(255 - np.load(self.files[index]))", "sum"),
        ('"uint8", 255.0', '"uint8", 127.0', "scale"),
    ],
)
def test_a_mended_dataset_never_takes_its_old_tiles(
    tmp_path: Path, old: str, new: str, changed: str
) -> None:
    before = packed_by(ADAPTER, tmp_path)
    assert packed_by(ADAPTER, tmp_path) == before
    after = packed_by(ADAPTER.replace(old, new), tmp_path)
    assert after[changed] != before[changed]
    assert after["digest"] != before["digest"]
    assert packed_by(ADAPTER, tmp_path) == before


def test_two_classes_of_one_name_and_folder_share_no_tiles(tmp_path: Path) -> None:
    own, other = (packed_by(ADAPTER, tmp_path, name) for name in ("Own", "Other"))
    assert own["path"] != other["path"]
    assert own["sum"] > other["sum"]
    assert own["digest"] != other["digest"]


def test_a_file_that_is_edited_within_one_process_is_executed_again(tmp_path: Path) -> None:
    """The edits have one size and may lie within one second, as a cached compilation assumes."""
    path = tmp_path / "own.py"
    seen: list[float] = []
    for scale in ("255.0", "127.0", "255.0"):
        path.write_text(ADAPTER.replace("255.0", scale))
        assert registry.load("datasets", f"{path}:Own").sensor.scale == (seen[-1:] or [255.0])[0]
        registry.reload_changed()
        adapter = registry.load("datasets", f"{path}:Own")
        seen.append(adapter.sensor.scale)
        digest = sha256(path.read_bytes()).hexdigest()
        assert registry.code_digest(adapter) == sha256(digest.encode()).hexdigest()
        assert registry.portable(f"{path}:Own") == f"own.py:Own@{digest[:12]}"
    assert seen == [255.0, 127.0, 255.0]
    assert not (tmp_path / "__pycache__").exists()


def test_a_new_version_of_a_registered_dataset_is_packed_again(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry.registered("datasets", registry.load("datasets", TOY)) as name:
        before = open_or_pack(data, toy(dataset=name), cache)
        monkeypatch.setattr(registry.load("datasets", TOY), "version", 2)
        after = open_or_pack(data, toy(dataset=name), cache)
    assert before.path != after.path
    assert before.source_digest != after.source_digest


# Archives under other paths


def copy(data: Path, root: Path, keep_times: bool = True) -> Path:
    shutil.copytree(data, root, copy_function=shutil.copy2 if keep_times else shutil.copyfile)
    return root


@pytest.mark.parametrize("keep_times", [True, False])
def test_an_archive_under_another_path_takes_the_packed_store(
    data: Path, cache: Path, tmp_path: Path, keep_times: bool
) -> None:
    first = open_or_pack(data, toy(), cache)
    moved = copy(data, tmp_path / "moved", keep_times)
    compared: list[str] = []
    second = open_or_pack(moved, toy(), cache, progress=lambda what, *_: compared.append(what))
    assert second.path == first.path
    assert second.source_digest == first.source_digest
    assert compared == ["comparing toy train with packed tiles"] * 20
    compared.clear()
    for root in (moved, data):  # Both places are known from now on.
        open_or_pack(root, toy(), cache, progress=lambda what, *_: compared.append(what))
    assert compared == []
    assert stores(cache) == [first.path]


def test_equal_sizes_and_times_under_another_path_are_not_trusted(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    for path in (data / "masked").glob("*.npy"):
        os.utime(path, ns=(1, 1))
    first = open_or_pack(data, masked(), cache)
    moved = copy(data, tmp_path / "moved")
    path = moved / "masked" / "1.npy"
    changed = np.load(path)
    changed[0, 0, 0] ^= 1
    np.save(path, changed)
    os.utime(path, ns=(1, 1))
    second = open_or_pack(moved, masked(), cache)
    assert second.path != first.path
    assert (second.tiles != first.tiles).sum() == 1
    assert open_or_pack(data, masked(), cache).path == first.path
    assert stores(cache) == sorted([first.path, second.path])


def test_a_read_only_cache_serves_an_archive_under_another_path(
    data: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_or_pack(data, toy(), cache)
    moved = copy(data, tmp_path / "moved", keep_times=False)

    def refuse(path: Path, _content: str | bytes) -> None:
        raise ArtefactError(f"{path} cannot be written (Read-only file system)")

    def read_only(*_: Any, **__: Any) -> None:
        raise OSError("Read-only file system")

    for name in ("places", "store"):
        monkeypatch.setattr(f"rscl_bench.tiles.{name}.write_atomic", refuse)
    for name in ("utime", "mkdir"):
        monkeypatch.setattr(os, name, read_only)
    for root in (moved, data):
        assert open_or_pack(root, toy(), cache, progress=not_packing).path == first.path


def test_a_store_is_removed_when_the_last_of_its_archives_has_changed(
    data: Path, cache: Path, tmp_path: Path
) -> None:
    first = open_or_pack(data, toy(), cache)
    moved = copy(data, tmp_path / "moved")
    assert open_or_pack(moved, toy(), cache).path == first.path
    for root in (data, moved):
        assert first.path.exists()
        add_trailer(root / "toy" / "train" / "000.png")
        other = open_or_pack(root, toy(), cache)
    assert stores(cache) == [other.path]


def test_a_store_of_an_older_version_is_packed_again(data: Path, cache: Path) -> None:
    store = open_or_pack(data, toy(), cache)
    manifest = store.path / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 1}))
    again = open_or_pack(data, toy(), cache)
    assert again.source_digest == store.source_digest
    assert read_manifest(again.path) is not None
    older = cache / "tiles" / "toy-train-0123456789abcdef-0123456789abcdef"
    shutil.copytree(again.path, older)
    (older / "manifest.json").write_text('{"format": 1, "dataset": "toy", "split": "train"}')
    shutil.rmtree(again.path)
    assert open_or_pack(data, toy(), cache).older == 1
    assert open_or_pack(data, toy(), cache).older == 0


# Files that cannot be source files


def test_a_special_file_is_refused(data: Path, cache: Path) -> None:
    path = data / "toy" / "train" / "007.png"
    path.unlink()
    os.mkfifo(path)
    allow_missing_files(data / "toy")
    assert stat.S_ISFIFO(path.stat().st_mode)
    with pytest.raises(ArchiveError, match=r"007\.png is no regular file"):
        open_or_pack(data, toy(), cache)
    path.unlink()
    path.symlink_to(path)
    with pytest.raises(ArchiveError, match=r"007\.png cannot be re"):
        open_or_pack(data, toy(), cache)


def test_a_file_outside_of_the_archive_is_refused(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = registry.load("datasets", TOY)
    monkeypatch.setattr(adapter, "inputs", lambda self: [self.root.parent / "list.txt"])
    with pytest.raises(ArchiveError, match=r"list\.txt lies outside of .*toy; move it there"):
        open_or_pack(data, toy(), cache)


def test_a_file_that_changes_while_it_is_packed_is_refused(data: Path, cache: Path) -> None:
    def change(_what: str, done: int, _total: int) -> None:
        if done == 5:
            add_trailer(data / "toy" / "train" / "001.png")

    with pytest.raises(ArchiveError, match=r"changed while they were packed"):
        open_or_pack(data, toy(), cache, progress=change)
    assert stores(cache) == []
