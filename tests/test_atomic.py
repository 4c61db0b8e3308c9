"""Tests that files are written whole, durably, with one mode, and that nothing is left over."""

import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from helpers.disk import file_size_limit

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError

#: Writes ``argv[1]`` and says so when the temporary file is complete but not yet renamed.
_HALTED_WRITER = """
import os, sys, time
from pathlib import Path
from rscl_bench import atomic
def halt(descriptor):
    print("written", flush=True)
    time.sleep(600)
os.fsync = halt
atomic.write_atomic(Path(sys.argv[1]), b"x" * 100_000)
"""


def halted_writer(path: Path) -> subprocess.Popen[str]:
    writer = subprocess.Popen(
        [sys.executable, "-c", _HALTED_WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == "written\n"
    return writer


def test_next_write_removes_the_temporary_file_of_a_killed_writer(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    write_atomic(path, "old")
    with halted_writer(path) as writer:
        writer.kill()
        assert writer.wait() == -signal.SIGKILL
    (left,) = tmp_path.glob(".record.json.*.tmp")
    assert left.stat().st_size == 100_000
    assert path.read_text() == "old"
    (tmp_path / ".record.json.bak").touch()  # a user's own file
    (tmp_path / ".other.json.00.tmp").touch()  # of another path
    write_atomic(path, "new")
    assert path.read_text() == "new"
    assert {p.name for p in tmp_path.iterdir()} == {
        "record.json",
        ".record.json.bak",
        ".other.json.00.tmp",
    }


def test_temporary_file_of_a_writer_at_work_stays(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with halted_writer(path) as writer:
        try:
            write_atomic(path, "second")
            assert len(list(tmp_path.glob(".record.json.*.tmp"))) == 1
            assert path.read_text() == "second"
        finally:
            writer.kill()


def test_writers_of_one_path_do_not_disturb_each_other(tmp_path: Path) -> None:
    path, contents = tmp_path / "record.json", [str(n) * 1000 for n in range(8)]
    failures: list[Exception] = []

    def write(content: str) -> None:
        try:
            for _ in range(20):
                write_atomic(path, content)
        except ArtefactError as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert path.read_text() in contents
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_mode_is_that_of_the_umask(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        write_atomic(tmp_path / "file", "text")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o666 & ~mask


def test_full_disk_is_named_with_path_and_bytes_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    with (
        file_size_limit(1000),
        pytest.raises(ArtefactError, match=r"encoder\.safetensors of 5000 bytes cannot be written"),
    ):
        write_atomic(path, b"x" * 5000)
    assert not list(tmp_path.iterdir())
