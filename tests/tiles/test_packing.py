"""Packing by several processes: the same bytes as by one, whatever happens on the way."""

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
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import pytest
import torch
from helpers.paths import ADAPTERS
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from rscl_bench import registry
from rscl_bench.errors import ArchiveError, ArtefactError
from rscl_bench.spec import Source
from rscl_bench.tiles import cutting, packing
from rscl_bench.tiles.packing import open_or_pack
from rscl_bench.tiles.store import TileStore

IMAGES, WORKERS = 20, 2
# Two workers are forced on a machine of one core, too.
pytestmark = pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")

# Stands still after so many scenes until it is killed, each of them in the journal.
PACKER = """
import sys
from pathlib import Path
from rscl_bench.tiles import cutting, packing
from rscl_bench.spec import Source

data, cache, stop = Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4])
cutting.WORTH_WORKERS = cutting.GROUP_BYTES = packing.JOURNAL_SECONDS = 0
cutting.usable_cores = lambda: 2

def stand_still(_what, done, _total):
    if done == stop:
        print("here", flush=True)
        sys.stdin.read()

packing.open_or_pack(data, Source.model_validate_json(sys.argv[1]), cache, True, stand_still)
"""


@pytest.fixture
def data(toy_data: Path, tmp_path: Path) -> Path:
    shutil.copytree(toy_data, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them for any archive, which take one file at a time."""
    monkeypatch.setattr(cutting, "WORTH_WORKERS", 0)
    monkeypatch.setattr(cutting, "GROUP_BYTES", 0)
    monkeypatch.setattr(cutting, "usable_cores", lambda: WORKERS)


@pytest.fixture
def journals(monkeypatch: pytest.MonkeyPatch) -> None:
    """One after every scene."""
    monkeypatch.setattr(packing, "JOURNAL_SECONDS", 0)


def source(name: str = "Watched", **changes: Any) -> Source:
    return Source(**{"dataset": f"{ADAPTERS}:{name}", "split": "train", "tile_size": 8, **changes})


def content(store: TileStore) -> dict[str, bytes]:
    files = (path for path in store.path.iterdir() if path.name != "verified.json")
    return {path.name: path.read_bytes() for path in files}


def left(cache: Path) -> list[Path]:
    return list((cache / "tiles").glob(".*"))


def read_log(data: Path) -> list[int]:
    return [int(line) for line in (data / "read").read_text().split()]


def interrupt_at(number: int, error: type[BaseException] = KeyboardInterrupt) -> Any:
    def interrupt(_what: str, done: int, _total: int) -> None:
        if done == number:
            raise error

    return interrupt


def interrupted(data: Path, cache: Path, number: int) -> Path:
    """Interrupt packing after so many scenes; return its work folder."""
    with pytest.raises(KeyboardInterrupt):
        open_or_pack(data, source(), cache, True, interrupt_at(number))
    (work,) = left(cache)
    return work


def resumed_at(data: Path, cache: Path, **more: Any) -> int:
    """Pack on; return the first scene that was packed, counted from 1."""
    told: list[int] = []
    store = open_or_pack(data, source(), cache, True, lambda *args: told.append(args[1]), **more)
    whole = open_or_pack(data, source(), cache.with_name("whole"), True)
    assert content(store) == content(whole)
    assert left(cache) == []
    assert told == list(range(told[0], IMAGES + 1))
    return told[0]


@pytest.mark.parametrize("group", [0, 5000, 1 << 20])
@pytest.mark.parametrize(
    "asked",
    [source(), source(bands=("blue", "red")), source("Masked", tile_size=4, bands=("a", "c"))],
)
def test_the_same_bytes_whatever_the_number_of_processes(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, group: int, asked: Source
) -> None:
    registry.load("datasets", f"{ADAPTERS}:Masked").write_sketch(data, np.random.default_rng(0))
    alone = open_or_pack(data, asked, cache, with_labels=True)
    monkeypatch.setattr(cutting, "WORTH_WORKERS", 0)
    monkeypatch.setattr(cutting, "GROUP_BYTES", group)
    monkeypatch.setattr(cutting, "usable_cores", lambda: WORKERS)
    processes: set[int] = set()

    def look(_what: str, done: int, _total: int) -> None:
        processes.update(child.pid or 0 for child in multiprocessing.active_children())
        if done == 1:
            time.sleep(0.3)  # so that workers run ahead of a group that is still being taken

    together = open_or_pack(data, asked, cache.with_name("other"), True, look)
    assert content(together) == content(alone)
    assert sorted(content(alone)) == ["manifest.json", "shares.npy", "tiles.raw"]
    assert len(processes) == (WORKERS if group < 1 << 20 else len(processes))
    assert multiprocessing.active_children() == []


def test_few_bytes_start_no_process(data: Path, cache: Path) -> None:
    def look(*_: Any) -> None:
        assert multiprocessing.active_children() == []

    open_or_pack(data, source(), cache, progress=look)


@pytest.mark.usefixtures("workers")
def test_packing_draws_no_global_number(data: Path, cache: Path) -> None:
    before = torch.get_rng_state()
    open_or_pack(data, source(), cache)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.usefixtures("workers")
def test_no_process_to_be_had(data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Any) -> None:
        raise BlockingIOError("Resource temporarily unavailable")

    monkeypatch.setattr(DataLoader, "__iter__", refuse)
    assert len(open_or_pack(data, source(), cache)) == 9 * IMAGES


@pytest.mark.usefixtures("workers")
@pytest.mark.parametrize("room", [0, 1000])
def test_no_room_for_tiles_on_their_way(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    alone = open_or_pack(data, source(), cache.with_name("alone"), True)
    write = os.pwrite

    def full(handle: int, part: memoryview, start: int) -> int:
        if start >= room:
            raise OSError("No space left on device")
        return write(handle, part[: room - start], start)

    monkeypatch.setattr(os, "pwrite", full)  # forked workers take it along
    assert content(open_or_pack(data, source(), cache, True)) == content(alone)


@pytest.mark.usefixtures("workers")
def test_tiles_on_their_way_in_small_parts(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = open_or_pack(data, source(), cache.with_name("alone"), True)
    write, read = os.pwrite, os.preadv
    monkeypatch.setattr(os, "pwrite", lambda to, part, at: write(to, part[:100], at))
    monkeypatch.setattr(os, "preadv", lambda of, parts, at: read(of, [parts[0][:70]], at))
    assert content(open_or_pack(data, source(), cache, True)) == content(alone)
    monkeypatch.setattr(os, "preadv", lambda *_: 0)
    with pytest.raises(ArtefactError, match="cut short"):
        open_or_pack(data, source(), cache.with_name("short"), True)


def test_what_a_spawned_worker_gets(data: Path) -> None:
    """Its adapter's class is of a file and cannot be pickled by name."""
    scenes = cutting.SceneCutter(data, source(), True, "stop")
    (there,) = pickle.loads(pickle.dumps(scenes))[range(3, 4)]  # noqa: S301
    (here,) = scenes[range(3, 4)]
    assert isinstance(here, cutting.Cut)
    for name, value in vars(here).items():
        assert np.array_equal(getattr(there, name), value), name
    with TemporaryFile() as file:
        handed_over = pickle.loads(pickle.dumps(cutting._HandedOver(scenes, [file])))  # noqa: S301
        (piped,) = handed_over[0, range(3, 4)]
    assert np.array_equal(piped.tiles, here.tiles)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_band_sums_do_not_overflow(dtype: type[Any]) -> None:
    tile: NDArray[Any] = np.full((600, 600, 2), np.iinfo(dtype).max, dtype)
    tile[:, 0, 1] = 3
    sums, squares = cutting._band_sums(tile)
    values = tile.reshape(-1, 2).astype(object)
    assert sums.tolist() == values.sum(axis=0).tolist()
    assert squares.tolist() == (values**2).sum(axis=0).tolist()


def test_groups_are_all_scenes_in_order_and_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "GROUP_BYTES", 10)
    monkeypatch.setattr(cutting, "GROUP_FILES", 3)
    sizes = [1, 1, 1, 1, 9, 2, 50, 3, 0]
    groups = cutting._groups(sizes, 4)
    assert [list(group) for group in groups] == [[4, 5, 6], [7, 8], [9], [10], [11, 12]]
    assert [list(group) for group in cutting._groups([], 4)] == [[]]


@pytest.mark.usefixtures("workers")
def test_few_scenes_are_in_flight(data: Path, cache: Path) -> None:
    ahead: list[int] = []

    def look(_what: str, done: int, _total: int) -> None:
        if done == 1:
            time.sleep(0.3)  # so that workers could run ahead
        ahead.append(len(read_log(data)) - done)

    open_or_pack(data, source(), cache, progress=look)
    assert 0 < max(ahead) <= 2 * WORKERS


# Resuming.


@pytest.mark.usefixtures("workers", "journals")
def test_killed_packing_goes_on(data: Path, cache: Path) -> None:
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
        decoded = len(read_log(data))
        # Its workers may live for some more seconds; they hold nothing.
        assert resumed_at(data, cache) == 13
    again = read_log(data)[decoded:][: IMAGES - 12]
    assert min(again) == 12


@pytest.mark.usefixtures("workers", "journals")
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupted_packing_goes_on(data: Path, cache: Path, error: type[BaseException]) -> None:
    for number in (3, 4, 11):
        with pytest.raises(error):
            open_or_pack(data, source(), cache, True, interrupt_at(number, error))
        assert multiprocessing.active_children() == []
    assert resumed_at(data, cache) == 12


@pytest.mark.usefixtures("journals")
def test_killed_after_the_last_scene(data: Path, cache: Path) -> None:
    interrupted(data, cache, IMAGES)
    store = open_or_pack(data, source(), cache, True)
    assert len(read_log(data)) == IMAGES
    assert content(store) == content(open_or_pack(data, source(), cache / "whole", True))


@pytest.mark.usefixtures("journals")
def test_what_came_after_the_journal_is_packed_again(data: Path, cache: Path) -> None:
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


def cut_journal(work: Path) -> None:
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
        cut_journal,
        shorten,
        flip_bit,
        lose_shares,
    ],
    ids=["key", "type", "files", "cut", "short", "bit", "shares"],
)
def test_a_journal_that_does_not_fit_starts_over(
    data: Path, cache: Path, damage: Callable[[Path], None]
) -> None:
    damage(interrupted(data, cache, 7))
    assert resumed_at(data, cache) == 1


@pytest.mark.usefixtures("journals")
def test_a_full_disk_later_on_goes_on(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append = packing._Appended.append

    def full(file: Any, array: NDArray[Any]) -> None:
        if file.length > 10_000:
            raise OSError("No space left on device")
        append(file, array)

    with monkeypatch.context() as patch:
        patch.setattr(packing._Appended, "append", full)
        with pytest.raises(ArtefactError, match=r"No space left.*make room there"):
            open_or_pack(data, source(), cache, True)
    assert resumed_at(data, cache) == 10_000 // (9 * 8 * 8 * 3) + 2


@pytest.mark.usefixtures("journals")
def test_work_on_an_archive_that_changed_is_removed(data: Path, cache: Path) -> None:
    work = interrupted(data, cache, 7)
    os.utime(data / "toy" / "train" / "019.png", ns=(1, 1))
    seen: list[bool] = []
    store = open_or_pack(
        data, source(), cache, True, lambda *_: seen.append((cache / "tiles" / work.name).exists())
    )
    assert not any(seen)  # what it took is free from the start
    assert list((cache / "tiles").iterdir()) == [store.path]


@pytest.mark.usefixtures("journals")
def test_work_that_another_finished_is_removed(data: Path, cache: Path) -> None:
    work = interrupted(data, cache, 7)
    store = open_or_pack(data, source(), cache, True)
    (store.path.parent / work.name).mkdir()
    open_or_pack(data, source(), cache, True)
    assert list((cache / "tiles").iterdir()) == [store.path]


@pytest.mark.usefixtures("workers", "journals")
def test_two_at_once(data: Path, cache: Path) -> None:
    """One packs all while the other is in the middle; they share no file."""
    stores: list[TileStore] = []

    def another(_what: str, done: int, _total: int) -> None:
        if done == 7:
            told: list[int] = []
            log = lambda *args: told.append(args[1])  # noqa: E731
            stores.append(open_or_pack(data, source(), cache, True, log))
            assert told == list(range(1, IMAGES + 1))
            assert left(cache) != []  # the first one's

    stores.append(open_or_pack(data, source(), cache, True, another))
    whole = open_or_pack(data, source(), cache.with_name("whole"), True)
    assert [content(store) for store in stores] == [content(whole)] * 2
    assert list((cache / "tiles").iterdir()) == [stores[0].path]


# What goes wrong in a worker.


def spoil(data: Path, number: int) -> Path:
    path = data / "toy" / "train" / f"{number:03d}.png"
    path.write_bytes(b"")
    return path


@pytest.mark.usefixtures("workers")
def test_a_bad_image_gives_the_same_sentence(
    data: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = spoil(data, 9)
    with pytest.raises(ArchiveError) as in_a_worker:
        open_or_pack(data, source(), cache)
    assert multiprocessing.active_children() == []
    monkeypatch.setattr(cutting, "WORTH_WORKERS", 1 << 40)
    with pytest.raises(ArchiveError) as here:
        open_or_pack(data, source(), cache)
    assert str(in_a_worker.value) == str(here.value)
    assert str(path) in str(here.value)
    assert "Traceback" not in str(in_a_worker.value)
    with pytest.raises(ArchiveError, match=r"000\.png is 24×24 pixels, smaller than one"):
        open_or_pack(data, source(tile_size=25), cache, on_bad_tile="skip")


@pytest.mark.usefixtures("workers", "journals")
def test_a_bad_image_is_left_out_by_who_goes_on(data: Path, cache: Path) -> None:
    spoil(data, 9)
    with pytest.raises(ArchiveError, match=r"009\.png cannot be read"):
        open_or_pack(data, source(), cache)
    told: list[int] = []
    log = lambda *args: told.append(args[1])  # noqa: E731
    store = open_or_pack(data, source(), cache, False, log, "skip")
    assert told[0] == 10
    assert store.skipped == ("train/009.png",)
    assert len(store) == 9 * (IMAGES - 1)


@pytest.mark.usefixtures("journals")
def test_what_was_left_out_is_named_by_who_does_not(data: Path, cache: Path) -> None:
    spoil(data, 3)
    with pytest.raises(KeyboardInterrupt):
        open_or_pack(data, source(), cache, True, interrupt_at(7), "skip")
    with pytest.raises(ArchiveError, match=r"003\.png cannot be read"):
        open_or_pack(data, source(), cache, True)


@pytest.mark.usefixtures("workers", "journals")
def test_a_worker_that_dies_is_an_error_and_packing_goes_on(data: Path, cache: Path) -> None:
    def kill(_what: str, done: int, _total: int) -> None:
        if done == 5:
            for child in multiprocessing.active_children():
                os.kill(child.pid or 0, signal.SIGKILL)

    with pytest.raises(ArtefactError, match=r"process that decodes watched train died .*; pack a"):
        open_or_pack(data, source(), cache, True, kill)
    assert multiprocessing.active_children() == []
    assert resumed_at(data, cache) >= 6
