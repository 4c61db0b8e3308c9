"""Unpacking: nothing outside of the folder, no bomb, completely or not at all."""

import errno
import io
import random
import shutil
import stat
import struct
import tarfile
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from helpers.cli import call

from rscl_bench.archives import unpack as unpacking
from rscl_bench.archives.unpack import unpack
from rscl_bench.errors import ArchiveError, ArtefactError

FILES = {"aid/Airport/airport_1.jpg": b"first", "aid/Beach/beach_1.jpg": b"second" * 1000}


def zipped(path: Path, files: dict[str, bytes], mode: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = mode << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, content)
    return path


def tarred(path: Path, files: dict[str, bytes], **changes: object) -> Path:
    with tarfile.open(path, "w:gz") as file:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            for field, value in changes.items():
                setattr(info, field, value)
            file.addfile(info, io.BytesIO(content))
    return path


MAKE: dict[str, Any] = {"zip": zipped, "tar": tarred}


def everything(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_sound_archive(tmp_path: Path, kind: str) -> None:
    archive = MAKE[kind](tmp_path / f"a.{kind}", FILES)
    assert unpack(archive, tmp_path / "out") == 2
    assert everything(tmp_path / "out") == FILES
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    with pytest.raises(ArtefactError, match="exists and is not empty"):
        unpack(archive, tmp_path / "out")


def refused(archive: Path, tmp_path: Path, message: str) -> None:
    before = everything(tmp_path)
    with pytest.raises(ArchiveError, match=message):
        unpack(archive, tmp_path / "inner" / "out")
    (tmp_path / "inner").rmdir()  # fails unless the folder is empty
    assert everything(tmp_path) == before


OUTSIDE = ["../evil", "/evil", "a/../../evil"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    archive = MAKE[kind](tmp_path / f"a.{kind}", {**FILES, name: b"evil"})
    if kind == "tar" and ".." in name:
        refused(archive, tmp_path, "outside the destination")
    else:
        unpack(archive, tmp_path / "inner" / "out")
        inside = everything(tmp_path / "inner" / "out")
        assert set(inside.values()) == {*FILES.values(), b"evil"}
        assert set(everything(tmp_path)) == {archive.name, *(f"inner/out/{n}" for n in inside)}
    assert not Path("/evil").exists()


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_of_a_zip_become_plain_files(tmp_path: Path, mode: int) -> None:
    archive = zipped(tmp_path / "a.zip", {"link": b"/etc/passwd"}, mode | 0o644)
    unpack(archive, tmp_path / "out")
    link = tmp_path / "out" / "link"
    assert stat.S_ISREG(link.lstat().st_mode)
    assert link.read_bytes() == b"/etc/passwd"


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
@pytest.mark.parametrize("target", ["/etc/passwd", "../../secret", "aid"])
def test_links_and_devices_of_a_tar_are_refused(tmp_path: Path, kind: bytes, target: str) -> None:
    archive = tarred(tmp_path / "a.tar", {"link": b""}, type=kind, linkname=target)
    refused(archive, tmp_path, "no ZIP or TAR file of plain files .*'link'")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "_ALLOWANCE", 0)
    archive = MAKE[kind](tmp_path / f"a.{kind}", {"zeros": bytes(5_000_000)})
    assert archive.stat().st_size * 900 < 5_000_000
    refused(archive, tmp_path, "more than 20 times its size")


def test_a_zip_that_understates_its_size_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"zeros": bytes(1_000_000)})
    content = archive.read_bytes()
    assert content.count(struct.pack("<I", 1_000_000)) == 2
    archive.write_bytes(content.replace(struct.pack("<I", 1_000_000), struct.pack("<I", 10)))
    refused(archive, tmp_path, "Bad CRC-32")


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(errno.ENOSPC, "no space")])
def test_an_interrupted_unpack_leaves_nothing(
    tmp_path: Path, kind: str, error: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = MAKE[kind](tmp_path / f"a.{kind}", FILES)

    def interrupted(_: Any, target: Any, *more: Any) -> None:
        target.write(b"the first bytes")
        raise error

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    monkeypatch.setattr(tarfile, "copyfileobj", interrupted)
    expected = ArtefactError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        unpack(archive, tmp_path / "inner" / "out")
    assert not list((tmp_path / "inner").iterdir())


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_truncated_archive_is_refused(tmp_path: Path, kind: str) -> None:
    archive = MAKE[kind](tmp_path / f"a.{kind}", FILES)
    whole = archive.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 30):
        archive.write_bytes(whole[:size])
        refused(archive, tmp_path, "is damaged or no ZIP or TAR")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_flipped_bits_are_refused_or_harmless(tmp_path: Path, kind: str) -> None:
    archive = MAKE[kind](tmp_path / f"a.{kind}", FILES)
    whole, rng = archive.read_bytes(), random.Random(0)
    results = Counter[str]()
    for case in range(150):
        damaged, place = bytearray(whole), rng.randrange(8 * len(whole))
        damaged[place // 8] ^= 1 << place % 8
        archive.write_bytes(damaged)
        out = tmp_path / "inner" / str(case)
        try:
            unpack(archive, out)
            results["harmless" if everything(out) == FILES else "changed"] += 1
        except ArchiveError:
            results["refused"] += 1
    assert results["refused"] > 50
    # Names and the order of members have no checksum in either format; contents have one in a ZIP.
    assert results["changed"] < 75
    assert not [path for path in (tmp_path / "inner").iterdir() if path.name.startswith(".")]


def test_command(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", FILES)
    result = call("data", "unpack", archive, "--into", tmp_path / "data")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"2 files in {tmp_path / 'data'}\n"
    result = call("data", "unpack", tmp_path / "a.zip", "--into", tmp_path / "data")
    assert result.exit_code == 1
    assert "exists and is not empty" in result.output
