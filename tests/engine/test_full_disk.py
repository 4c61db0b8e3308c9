"""On a full disk, the previous file stays intact and an error message names the cause."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.disk import file_size_limit
from helpers.records import FOLDER, record_of, save
from helpers.toy import source

from rscl_bench.errors import ArtefactError
from rscl_bench.leaderboards.build import build_leaderboard
from rscl_bench.results.record import read_record, write_record
from rscl_bench.tiles.packing import open_or_pack
from rscl_bench.tiles.store import verify

OFFSETS = 50


def at_every_offset(size: int, write: Callable[[], Any], unharmed: Callable[[], None]) -> None:
    """Try to write a file when the disk has room for 0, 1/50, 2/50 ... of its size."""
    for part in range(OFFSETS):
        with (
            file_size_limit(size * part // OFFSETS),
            pytest.raises(ArtefactError, match=r"cannot be written|not writable"),
        ):
            write()
        unharmed()


def test_record(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    before, after = record_of(), record_of(finals=(0.6, 0.7))
    write_record(before, path)

    def unharmed() -> None:
        assert read_record(path) == before
        assert list(tmp_path.iterdir()) == [path]

    at_every_offset(path.stat().st_size, lambda: write_record(after, path, force=True), unharmed)
    with file_size_limit(10), pytest.raises(ArtefactError) as caught:
        write_record(after, path, force=True)
    assert f"{path} of {len(after.model_dump_json(indent=2)) + 1} bytes" in str(caught.value)


def test_leaderboard(tmp_path: Path) -> None:
    save(tmp_path / "records", "one", 1.0)
    build_leaderboard(tmp_path / "records", tmp_path / "out")
    files = sorted((tmp_path / "out" / FOLDER).iterdir())
    before = [path.read_bytes() for path in files]
    save(tmp_path / "records", "two", 2.0)
    largest = max(len(content) for content in before)

    def unharmed() -> None:
        found = sorted((tmp_path / "out" / FOLDER).iterdir())
        assert found == files
        for path, content in zip(files, before, strict=True):
            assert path.read_bytes() in (content, rebuilt[path.name])

    again = tmp_path / "again"
    build_leaderboard(tmp_path / "records", again)
    rebuilt = {path.name: path.read_bytes() for path in (again / FOLDER).iterdir()}

    def write() -> None:
        build_leaderboard(tmp_path / "records", tmp_path / "out")

    at_every_offset(largest, write, unharmed)
    write()
    assert {path.name: path.read_bytes() for path in files} == rebuilt


def test_tile_store(toy_data: Path, tmp_path: Path) -> None:
    kept = open_or_pack(toy_data, source(), tmp_path / "cache")
    other = source().model_copy(update={"tile_size": 20})
    size = open_or_pack(toy_data, other, tmp_path / "elsewhere").tiles.nbytes

    def unharmed() -> None:
        verify(kept.path)
        assert [path for path in kept.path.parent.iterdir() if path != kept.path] == []

    at_every_offset(size, lambda: open_or_pack(toy_data, other, tmp_path / "cache"), unharmed)
    shutil.rmtree(tmp_path / "elsewhere")
    assert open_or_pack(toy_data, other, tmp_path / "cache").tiles.nbytes == size
