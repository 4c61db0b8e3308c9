"""Packing by several processes gives the bytes of one process, also after interruptions."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers.paths import ADAPTERS, TOY
from torch.utils.data import DataLoader

from rscl_bench import registry
from rscl_bench.errors import ArchiveError, ArtefactError
from rscl_bench.spec import Source
from rscl_bench.tiles import cutting, workers, writer
from rscl_bench.tiles.packing import open_or_pack
from rscl_bench.tiles.store import TileStore

IMAGES, WORKERS = 20, 2
# The tests start two workers on a machine with one core too.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

# Packs `stop` scenes, with a journal after each one, and then waits until it is killed.
PACKER = """
import sys
from pathlib import Path
from rscl_bench.spec import Source
from rscl_bench.tiles import packing, workers, writer

data, cache, stop = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
workers.WORTH_WORKERS = workers.BATCH_BYTES = writer.JOURNAL_SECONDS = 0
workers.usable_cores = lambda: 2

def wait_to_be_killed(_what, done, _total):
    if done == stop:
        print("here", flush=True)
        sys.stdin.read()

packing.open_or_pack(data, Source.model_validate_json(sys.argv[1]), cache, True, wait_to_be_killed)
"""


@pytest.fixture
def data(toy_data: Path, tmp_path: Path) -> Path:
    shutil.copytree(toy_data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def two_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start two workers for any archive; each batch is one file."""
    monkeypatch.setattr(workers, "WORTH_WORKERS", 0)
    monkeypatch.setattr(workers, "BATCH_BYTES", 0)
    monkeypatch.setattr(workers, "usable_cores", lambda: WORKERS)


@pytest.fixture
def journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Write a journal after every scene."""
    monkeypatch.setattr(writer, "JOURNAL_SECONDS", 0)


def source(name: str = "Watched", **changes: Any) -> Source:
    return Source(**{"dataset": f"{ADAPTERS}:{name}", "split": "train", "tile_size": 8, **changes})


def content(store: TileStore) -> dict[str, bytes]:
    files = (p for p in store.path.iterdir() if not p.name.startswith(("verified", "place-")))
    return {path.name: path.read_bytes() for path in files}


def work_folders(cache: Path) -> list[Path]:
    return list((cache / "tiles").glob(".*"))


def decoded_scenes(data: Path) -> list[int]:
    """Return the index of every scene that any process decoded, in order."""
    return [int(line) for line in (data / "read").read_text().split()]


def interrupt_at(scenes: int, error: type[BaseException] = KeyboardInterrupt) -> Any:
    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == scenes:
            raise error

    return interrupt


def interrupted(data: Path, cache: Path, scenes: int) -> Path:
    """Interrupt packing after a number of scenes; return the work folder."""
    with pytest.raises(KeyboardInterrupt):
        open_or_pack(data, source(), cache, True, interrupt_at(scenes))
    (work,) = work_folders(cache)
    return work


def resumed_at(data: Path, cache: Path, **more: Any) -> int:
    """Resume packing; return the number, from 1, of the first scene that is packed."""
    packed: list[int] = []
    store = open_or_pack(data, source(), cache, True, lambda *args: packed.append(args[1]), **more)
    whole = open_or_pack(data, source(), cache.with_name("whole"), True)
    assert content(store) == content(whole)
    assert work_folders(cache) == []
    assert packed == list(range(packed[0], IMAGES + 1))
    return packed[0]


@pytest.mark.parametrize("batch_bytes", [0, 5000, 1 << 20])
@pytest.mark.parametrize(
    "wanted",
    [source(), source(bands=("blue", "red")), source("Masked", tile_size=4, bands=("a", "c"))],
)
def test_workers_give_the_bytes_of_one_process(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, batch_bytes: int, wanted: Source
) -> None:
    registry.load("datasets", f"{ADAPTERS}:Masked").write_sketch(data, np.random.default_rng(0))
    alone = open_or_pack(data, wanted, cache, with_labels=True)
    monkeypatch.setattr(workers, "WORTH_WORKERS", 0)
    monkeypatch.setattr(workers, "BATCH_BYTES", batch_bytes)
    monkeypatch.setattr(workers, "usable_cores", lambda: WORKERS)
    processes: set[int] = set()

    def look(_what: str, done: int, _total: int) -> None:
        processes.update(child.pid or 0 for child in multiprocessing.active_children())
        if done == 1:
            time.sleep(0.3)  # The workers decode the next batches meanwhile.

    together = open_or_pack(data, wanted, cache.with_name("other"), True, look)
    assert content(together) == content(alone)
    assert sorted(content(alone)) == ["manifest.json", "shares.npy", "tiles.raw"]
    if batch_bytes < 1 << 20:
        assert len(processes) == WORKERS
    assert multiprocessing.active_children() == []


def test_few_bytes_start_no_process(data: Path, cache: Path) -> None:
    def look(*_: Any) -> None:
        assert multiprocessing.active_children() == []

    open_or_pack(data, source(), cache, progress=look)


@pytest.mark.usefixtures("two_workers")
def test_packing_draws_no_global_number(data: Path, cache: Path) -> None:
    before = torch.get_rng_state()
    open_or_pack(data, source(), cache)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("two_workers")
def test_packing_needs_no_worker(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    iterate = DataLoader.__iter__

    def refuse_workers(loader: Any) -> Any:
        if loader.num_workers:
            raise BlockingIOError("Resource temporarily unavailable")
        return iterate(loader)

    monkeypatch.setattr(DataLoader, "__iter__", refuse_workers)
    assert len(open_or_pack(data, source(), cache)) == 9 * IMAGES


def test_scene_cutter_can_be_pickled(data: Path) -> None:
    """A spawned worker receives a pickled copy, whose adapter's class comes from a file."""
    scenes = cutting.SceneCutter(data, source(), True, "stop")
    unpickled, digests = pickle.loads(pickle.dumps(scenes))[3]  # noqa: S301
    expected = scenes[3]
    assert digests == expected.digests
    assert isinstance(expected.tiles, cutting.SceneTiles)
    for name, value in vars(expected.tiles).items():
        assert np.array_equal(getattr(unpickled, name), value), name


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_band_sums_do_not_overflow(dtype: type[Any]) -> None:
    tile = np.full((600, 600, 2), np.iinfo(dtype).max, dtype)
    tile[:, 0, 1] = 3
    sums, squares = cutting._band_sums(tile)
    values = tile.reshape(-1, 2).astype(object)
    assert sums.tolist() == values.sum(axis=0).tolist()
    assert squares.tolist() == (values**2).sum(axis=0).tolist()


def test_batches_hold_all_scenes_in_order_and_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "BATCH_BYTES", 10)
    monkeypatch.setattr(workers, "BATCH_FILES", 3)
    sizes = [1, 1, 1, 1, 9, 2, 50, 3, 0]
    assert workers._batches(sizes, 4) == [[4, 5, 6], [7, 8], [9], [10], [11, 12]]
    assert workers._batches([], 4) == []


@pytest.mark.usefixtures("two_workers")
def test_scenes_in_flight_are_bounded(data: Path, cache: Path) -> None:
    ahead: list[int] = []

    def look(_what: str, done: int, _total: int) -> None:
        if done == 1:
            time.sleep(0.3)  # Workers without a bound would run ahead.
        ahead.append(len(decoded_scenes(data)) - done)

    open_or_pack(data, source(), cache, progress=look)
    assert 0 < max(ahead) <= workers.PREFETCHED * WORKERS


# Resuming.


@pytest.mark.usefixtures("two_workers", "journals")
def test_killed_packing_resumes(data: Path, cache: Path) -> None:
    arguments = (source().model_dump_json(), str(data), str(cache), "12")
    process = subprocess.Popen(
        [sys.executable, "-c", PACKER, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        process.kill()
        assert process.wait() == -signal.SIGKILL
        decoded = len(decoded_scenes(data))
        # Its workers live for some more seconds, but do not hold the lock.
        assert resumed_at(data, cache) == 13
    decoded_again = decoded_scenes(data)[decoded:][: IMAGES - 12]
    assert min(decoded_again) == 12


@pytest.mark.usefixtures("two_workers", "journals")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_packing_resumes(data: Path, cache: Path, error: type[BaseException]) -> None:
    for scenes in (3, 4, 11):
        with pytest.raises(error):
            open_or_pack(data, source(), cache, True, interrupt_at(scenes, error))
        assert multiprocessing.active_children() == []
    assert resumed_at(data, cache) == 12


@pytest.mark.usefixtures("journals")
def test_interruption_after_the_last_scene_decodes_nothing_again(data: Path, cache: Path) -> None:
    interrupted(data, cache, IMAGES)
    store = open_or_pack(data, source(), cache, True)
    assert len(decoded_scenes(data)) == IMAGES
    assert content(store) == content(open_or_pack(data, source(), cache / "whole", True))


@pytest.mark.usefixtures("journals")
def test_bytes_after_the_journal_are_packed_again(data: Path, cache: Path) -> None:
    work = interrupted(data, cache, 7)
    for name in ("tiles.raw", "shares.raw"):
        with (work / name).open("ab") as file:
            file.write(b"the beginning of the next scene")
    assert resumed_at(data, cache) == 8


def edit(**changes: Any) -> Callable[[Path], None]:
    def change(work: Path) -> None:
        path = work / "journal.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def truncate_journal(work: Path) -> None:
    path = work / "journal.json"
    path.write_bytes(path.read_bytes()[:-5])


def shorten(work: Path) -> None:
    with (work / "tiles.raw").open("r+b") as file:
        file.truncate(100)


def flip_bit(work: Path) -> None:
    with (work / "tiles.raw").open("r+b") as file:
        first = file.read(1)
        file.seek(0)
        file.write(bytes([first[0] ^ 1]))


def lose_shares(work: Path) -> None:
    (work / "shares.raw").unlink()


@pytest.mark.usefixtures("journals")
@pytest.mark.parametrize(
    "damage",
    [
        edit(key="other"),
        edit(scenes="many"),
        edit(files={}),
        truncate_journal,
        shorten,
        flip_bit,
        lose_shares,
    ],
    ids=["key", "type", "files", "truncated", "short", "bit", "shares"],
)
def test_packing_starts_over_if_the_journal_does_not_fit(
    data: Path, cache: Path, damage: Callable[[Path], None]
) -> None:
    damage(interrupted(data, cache, 7))
    assert resumed_at(data, cache) == 1


@pytest.mark.usefixtures("journals")
def test_packing_resumes_after_a_full_disk(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = writer._AppendedFile.append

    def full(file: Any, data: memoryview | bytes) -> None:
        if file.length > 10_000:
            raise OSError("No space left on device")
        append(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(writer._AppendedFile, "append", full)
        with pytest.raises(ArtefactError, match=r"No space left.*make room there"):
            open_or_pack(data, source(), cache, True)
    assert resumed_at(data, cache) == 10_000 // (9 * 8 * 8 * 3) + 2


@pytest.mark.usefixtures("journals")
def test_work_on_an_outdated_archive_is_removed_before_packing(data: Path, cache: Path) -> None:
    work = interrupted(data, cache, 7)
    os.utime(data / "toy" / "train" / "019.png", ns=(1, 1))
    seen: list[bool] = []
    store = open_or_pack(
        data, source(), cache, True, lambda *_: seen.append((cache / "tiles" / work.name).exists())
    )
    assert not any(seen)
    assert list((cache / "tiles").iterdir()) == [store.path]


@pytest.mark.usefixtures("journals")
def test_abandoned_work_on_a_packed_store_is_removed(data: Path, cache: Path) -> None:
    work = interrupted(data, cache, 7)
    store = open_or_pack(data, source(), cache, True)
    (store.path.parent / work.name).mkdir()
    open_or_pack(data, source(), cache, True)
    assert list((cache / "tiles").iterdir()) == [store.path]


@pytest.mark.usefixtures("two_workers", "journals")
def test_two_packers_at_once(data: Path, cache: Path) -> None:
    """One packer packs everything while the other is halfway; the packers share no file."""
    stores: list[TileStore] = []

    def pack_meanwhile(_what: str, done: int, _total: int) -> None:
        if done == 7:
            packed: list[int] = []
            log = lambda *args: packed.append(args[1])  # noqa: E731
            stores.append(open_or_pack(data, source(), cache, True, log))
            assert packed == list(range(1, IMAGES + 1))
            assert work_folders(cache) != []  # the folder of the first packer

    stores.append(open_or_pack(data, source(), cache, True, pack_meanwhile))
    whole = open_or_pack(data, source(), cache.with_name("whole"), True)
    assert [content(store) for store in stores] == [content(whole)] * 2
    assert list((cache / "tiles").iterdir()) == [stores[0].path]


# Stopping before the first journal.

STOPPED = """
import sys
from rscl_bench.tiles import packing, workers
workers.WORTH_WORKERS = workers.BATCH_BYTES = 0
workers.usable_cores = lambda: 2

def wait_for_a_signal(_what, done, _total):
    if done == 3:
        print("here", flush=True)
        sys.stdin.read()

from rscl_bench import api
from rscl_bench.progress import SilentReporter
SilentReporter.progress = staticmethod(wait_for_a_signal)
open_tiles = api.open_tiles
api.open_tiles = lambda *given, **named: open_tiles(*given, **named, verbose=False)
from rscl_bench.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_packing_that_is_stopped_before_its_first_journal_leaves_nothing(
    toy_data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    cache = tmp_path / "cache"
    command = ["data", "prepare", "--scenario", str(TOY), "--data-root", str(toy_data)]
    with subprocess.Popen(
        [sys.executable, "-c", STOPPED, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "RSCL_CACHE": str(cache)},
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        assert len(work_folders(cache)) == 2  # the folder and its lock
        process.send_signal(number)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert process.wait(timeout=60) == expected
    if number != signal.SIGKILL:
        assert list((cache / "tiles").iterdir()) == []
    # Another split sweeps what a killed process left.
    other = Source(dataset=f"{ADAPTERS}:Toy", split="test", tile_size=24)
    store = open_or_pack(toy_data, other, cache)
    assert list((cache / "tiles").iterdir()) == [store.path]


def test_a_lock_without_a_folder_is_removed(data: Path, cache: Path) -> None:
    store = open_or_pack(data, source(), cache)
    name = f".{store.path.name}-3.lock"
    (store.path.parent / name).touch()
    foreign = [store.path.parent / name for name in (".snapshot", ".keep-3")]
    for folder in foreign:
        folder.mkdir()
    open_or_pack(data, source(), cache)
    assert sorted((cache / "tiles").iterdir()) == sorted([*foreign, store.path])


# Errors in a worker.


def empty_image(data: Path, scene: int) -> Path:
    path = data / "toy" / "train" / f"{scene:03d}.png"
    path.write_bytes(b"")
    return path


@pytest.mark.usefixtures("two_workers")
def test_a_worker_reports_a_bad_image_as_one_process_does(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = empty_image(data, 9)
    with pytest.raises(ArchiveError) as in_a_worker:
        open_or_pack(data, source(), cache)
    assert multiprocessing.active_children() == []
    monkeypatch.setattr(workers, "WORTH_WORKERS", 1 << 40)
    with pytest.raises(ArchiveError) as alone:
        open_or_pack(data, source(), cache)
    assert str(in_a_worker.value) == str(alone.value)
    assert str(path) in str(alone.value)
    assert "Traceback" not in str(in_a_worker.value)
    with pytest.raises(ArchiveError, match=r"000\.png is 24×24 pixels, smaller than one"):
        open_or_pack(data, source(tile_size=25), cache, on_bad_tile="skip")


@pytest.mark.usefixtures("two_workers", "journals")
def test_resumed_packing_skips_a_bad_image(data: Path, cache: Path) -> None:
    empty_image(data, 9)
    with pytest.raises(ArchiveError, match=r"009\.png cannot be read"):
        open_or_pack(data, source(), cache)
    packed: list[int] = []
    log = lambda *args: packed.append(args[1])  # noqa: E731
    store = open_or_pack(data, source(), cache, False, log, "skip")
    assert packed[0] == 10
    assert store.skipped == ("train/009.png",)
    assert len(store) == 9 * (IMAGES - 1)


@pytest.mark.usefixtures("journals")
def test_resumed_packing_stops_at_an_image_that_was_skipped(data: Path, cache: Path) -> None:
    empty_image(data, 3)
    with pytest.raises(KeyboardInterrupt):
        open_or_pack(data, source(), cache, True, interrupt_at(7), "skip")
    with pytest.raises(ArchiveError, match=r"003\.png cannot be read"):
        open_or_pack(data, source(), cache, True)


@pytest.mark.usefixtures("two_workers", "journals")
def test_packing_resumes_after_a_worker_died(data: Path, cache: Path) -> None:
    def kill(_what: str, done: int, _total: int) -> None:
        if done == 5:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(ArtefactError, match=r"worker process that decodes watched train died"):
        open_or_pack(data, source(), cache, True, kill)
    assert multiprocessing.active_children() == []
    assert resumed_at(data, cache) >= 6
