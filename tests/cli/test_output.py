"""Standard output that cannot be written: a run goes on, and other commands say so."""

import errno
import io
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from helpers.cli import ONE_EPOCH, records_in, spawn
from helpers.paths import TOY

from rscl_bench.output import LastingStream, say

if TYPE_CHECKING:
    import subprocess

FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="has no /dev/full")


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RSCL_CACHE", str(tmp_path_factory.getbasetemp() / "output-cache"))
        patch.delenv("RSCL_DATA_ROOT", raising=False)
        yield


def toy(command: str, out: Path, **options: Any) -> "subprocess.Popen[str]":
    method = "--method" if command == "run" else "--methods"
    more = () if command == "run" else ("--seeds", "0", "--jobs", "1", "--threads", "1")
    given = ("--scenario", TOY, method, "finetune", "--out", out, *ONE_EPOCH, *more)
    return spawn(command, *given, **options)


def the_rest(process: "subprocess.Popen[str]") -> str:
    """Wait for the end of a process, and return its standard error."""
    assert process.stderr is not None
    with process.stderr:
        err = process.stderr.read()
    process.wait()
    return err


@pytest.mark.parametrize("command", ["run", pytest.param("sweep", marks=pytest.mark.fault)])
def test_the_reader_goes_away(tmp_path: Path, command: str) -> None:
    process = toy(command, tmp_path)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    err = the_rest(process)
    assert process.returncode == 0, err
    assert err.splitlines()[-1] == "note: lines of the output could not be written (Broken pipe)"
    assert len(records_in(tmp_path)) == 1


@needs_full
@pytest.mark.fault
@pytest.mark.parametrize("command", ["run", "sweep"])
def test_a_log_on_a_full_disk(tmp_path: Path, command: str) -> None:
    with FULL.open("w") as full:
        process = toy(command, tmp_path, stdout=full)
        _, err = process.communicate()
    assert process.returncode == 0, err
    note = "note: lines of the output could not be written (No space left on device)"
    assert err.splitlines()[-1] == note
    assert len(records_in(tmp_path)) == 1


@needs_full
@pytest.mark.fault
def test_both_outputs_on_a_full_disk(tmp_path: Path) -> None:
    with FULL.open("w") as full:
        assert toy("run", tmp_path, stdout=full, stderr=full).wait() == 0
    assert len(records_in(tmp_path)) == 1


@needs_full
def test_a_command_that_only_prints_fails_on_a_full_disk() -> None:
    with FULL.open("w") as full:
        process = spawn("list", stdout=full)
        _, err = process.communicate()
    assert (process.returncode, err) == (
        1,
        "error: The output cannot be written (No space left on device).\n",
    )


def test_a_command_that_only_prints_ends_as_by_sigpipe() -> None:
    process = spawn("list")
    assert process.stdout is not None
    process.stdout.close()
    assert the_rest(process) == ""
    assert process.returncode == 128 + signal.SIGPIPE


class Broken(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    flush = write  # type: ignore[assignment]


def test_a_stream_notes_its_first_error_and_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = LastingStream(Broken())
    assert stream.error is None
    assert stream.write("four") == 4
    assert stream.error is not None
    assert stream.error.errno == errno.ENOSPC
    assert stream.isatty() is False
    monkeypatch.setattr(sys, "stdout", Broken())
    say("lost")
