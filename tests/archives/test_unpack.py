"""Unpacking: nothing outside of the folder, no bomb, completely or not at all."""

import bz2
import errno
import gzip
import io
import lzma
import os
import random
import signal
import stat
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
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
    if (tmp_path / "inner").exists():
        (tmp_path / "inner").rmdir()  # fails unless the folder is empty
    assert everything(tmp_path) == before


OUTSIDE = ["../evil", "/evil", "a/../../evil"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_is_written_outside_of_the_folder(tmp_path: Path, kind: str, name: str) -> None:
    archive = MAKE[kind](tmp_path / f"a.{kind}", {**FILES, name: b"evil"})
    if ".." in name:
        refused(archive, tmp_path, "leads outside of the folder")
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
    refused(archive, tmp_path, "holds the link or device 'link'; only plain files")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_is_refused(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "_ALLOWANCE", 0)
    archive = MAKE[kind](tmp_path / f"a.{kind}", {"zeros": bytes(5_000_000)})
    assert archive.stat().st_size * 900 < 5_000_000
    refused(archive, tmp_path, "The limit is 20 times its size.* raise the limit with --max-ratio")
    assert unpack(archive, tmp_path / "out", max_ratio=2000) == 1


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

    def interrupted(*_: Any) -> Iterator[bytes]:
        yield b"the first bytes"
        raise error

    monkeypatch.setattr(unpacking, "_blocks", interrupted)
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
        refused(archive, tmp_path, "fetch it again")


def survives(archive: Path, whole: bytes, mutate: Callable[[bytearray], Any], out: Path) -> str:
    damaged = bytearray(whole)
    mutate(damaged)
    archive.write_bytes(damaged)
    try:
        unpack(archive, out)
    except ArchiveError as error:
        reason = str(error)
    else:
        return "harmless" if everything(out) == FILES else "changed"
    assert str(archive) in reason
    assert reason.isprintable()
    return "refused"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_flipped_bits_are_refused_or_harmless(tmp_path: Path, kind: str) -> None:
    archive = MAKE[kind](tmp_path / f"a.{kind}", FILES)
    whole, rng = archive.read_bytes(), random.Random(0)
    results = Counter[str]()

    def flip(content: bytearray) -> None:
        place = rng.randrange(8 * len(content))
        content[place // 8] ^= 1 << place % 8

    for case in range(150):
        results[survives(archive, whole, flip, tmp_path / "inner" / str(case))] += 1
    assert results["refused"] > 50
    # Names of a ZIP file have no checksum.
    assert results["changed"] < (75 if kind == "zip" else 1)
    assert not [path for path in (tmp_path / "inner").iterdir() if path.name.startswith(".")]


def mutants(tmp_path: Path, kind: str, number: int, seed: int) -> Counter[str]:
    """Unpack mutants of 1 to 6 bytes, of archives with names beyond ASCII and long ones."""
    long_name = f"{'folder/' * 20}{'x' * 120}.tif"
    files = {**FILES, "aid/Flächen/Wald ä.tif": b"third", long_name: bytes(300)}
    if kind == "zip":
        archive = zipped(tmp_path / "a.zip", files)
    else:
        archive = tmp_path / "a.tar"  # no checksum of gzip stands before the headers
        formats = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
        with tarfile.open(archive, "w", format=formats[kind]) as file:
            for name, content in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))
    whole, rng = archive.read_bytes(), random.Random(seed)
    # Most of a TAR file is zeros, in which a mutation changes nothing.
    places = [place for place, byte in enumerate(whole) if byte or kind == "zip"]

    def change(content: bytearray) -> None:
        for _ in range(rng.randrange(1, 7)):
            content[rng.choice(places)] = rng.randrange(256)

    results = Counter[str]()
    for case in range(number):
        results[survives(archive, whole, change, tmp_path / "inner" / str(case))] += 1
    assert not [path for path in (tmp_path / "inner").iterdir() if path.name.startswith(".")]
    return results


@pytest.mark.parametrize("kind", ["zip", "gnu", "pax"])
def test_mutants_give_one_sentence(tmp_path: Path, kind: str) -> None:
    assert mutants(tmp_path, kind, 150, seed=1)["refused"] > 20


@pytest.mark.fault
@pytest.mark.parametrize("kind", ["zip", "gnu", "pax"])
def test_thousands_of_mutants_give_one_sentence(tmp_path: Path, kind: str) -> None:
    assert mutants(tmp_path, kind, 2000, seed=2)["refused"] > 300


# Headers


def tar_header(kind: bytes, size: int, name: str = "x") -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.GNU_FORMAT)


def gzipped(path: Path, start: bytes, zeros: int) -> Path:
    """Write a gzip file of some bytes and then zeros, of which one MiB is compressed once."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    begin = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(2**20)) + packer.flush(zlib.Z_FULL_FLUSH)
    path.write_bytes(begin + block * (zeros >> 20))
    return path


LIMITED = """
import resource, sys
from pathlib import Path
from rscl_bench.archives import unpack as unpacking
from rscl_bench.archives.unpack import unpack
from rscl_bench.errors import ArchiveError
unpacking._ALLOWANCE = 256 << 20
resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20))
try:
    print(unpack(Path(sys.argv[1]), Path(sys.argv[2])))
except ArchiveError as error:
    print("refused:", error)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(int(peak.split()[1]) >> 10, "MiB", file=sys.stderr)
"""


def unpack_in_little_memory(archive: Path, out: Path) -> str:
    command = [sys.executable, "-c", LIMITED, str(archive), str(out)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert int(ended.stderr.split()[0]) < 100, ended.stderr
    return ended.stdout


@pytest.mark.parametrize(
    "kind", [tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE]
)
def test_a_header_of_512_mib_takes_no_memory(tmp_path: Path, kind: bytes) -> None:
    archive = gzipped(tmp_path / "a.tar.gz", tar_header(kind, 512 << 20), 512 << 20)
    assert archive.stat().st_size < 2 << 20
    printed = unpack_in_little_memory(archive, tmp_path / "out")
    assert "is damaged" in printed
    assert "a header of 536870912 bytes" in printed
    assert not (tmp_path / "out").exists()


def test_zeros_after_the_end_take_no_memory(tmp_path: Path) -> None:
    archive = gzipped(tmp_path / "a.tar.gz", bytes(1024), 400 << 20)
    printed = unpack_in_little_memory(archive, tmp_path / "out")
    assert "The limit is 20 times its size, and 4 GiB more; nothing was unpacked" in printed


@pytest.mark.parametrize("records", ["x", "global"])
def test_many_headers_take_no_memory(tmp_path: Path, records: str) -> None:
    kind = tarfile.XGLTYPE if records == "global" else tarfile.XHDTYPE
    parts = []
    for number in range(2000):
        body = f"{number:07}".join(f"16 {key:04}=" for key in range(1000)).encode()[: 15 * 1000]
        padded = body + bytes(-len(body) % 512)
        parts.append(tar_header(kind, len(body)) + padded)
        if records == "x":
            parts.append(tar_header(tarfile.REGTYPE, 0, f"{number}"))
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(gzip.compress(b"".join(parts), 1))
    assert "refused" in unpack_in_little_memory(archive, tmp_path / "out")


def test_empty_files_are_counted(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz", compresslevel=1) as file:
        for number in range(30_000):
            file.addfile(tarfile.TarInfo(f"{number}"))
    printed = unpack_in_little_memory(tmp_path / "a.tar.gz", tmp_path / "out")
    assert "would unpack to more than " in printed
    assert " files" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("compression", [None, gzip, bz2, lzma])
def test_long_names_are_unpacked(tmp_path: Path, compression: Any) -> None:
    name = "/".join(["ä" * 100] * 5)
    for layout in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w", format=layout) as file:
            info = tarfile.TarInfo(name)
            info.size = 3
            file.addfile(info, io.BytesIO(b"abc"))
        content = buffer.getvalue()
        archive = tmp_path / f"{layout}.tar"
        archive.write_bytes(compression.compress(content) if compression else content)
        assert unpack(archive, tmp_path / f"out{layout}") == 1
        assert everything(tmp_path / f"out{layout}") == {name: b"abc"}


@pytest.mark.parametrize(
    "headers", [{"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}, {"GNU.sparse.map": "0,1"}]
)
def test_a_sparse_file_is_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as file:
        info = tarfile.TarInfo("hole.tif")
        info.pax_headers, info.size = headers, 512
        file.addfile(info, io.BytesIO(bytes(512)))
    refused(tmp_path / "a.tar", tmp_path, "a sparse file")
    (tmp_path / "a.tar").write_bytes(tar_header(tarfile.GNUTYPE_SPARSE, 0) + bytes(1024))
    refused(tmp_path / "a.tar", tmp_path, "a sparse file")


def test_masks_that_shrink_a_hundredfold_are_unpacked(tmp_path: Path) -> None:
    masks = {f"masks/{number}.tif": bytes(4_000_000) for number in range(5)}
    archive = zipped(tmp_path / "a.zip", masks)
    assert sum(map(len, masks.values())) > 85 * archive.stat().st_size
    assert unpack(archive, tmp_path / "out") == 5


# Damage that used to pass, and formats


def test_a_damaged_header_is_not_taken_for_the_end(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as file:
        for name, content in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    whole = archive.read_bytes()
    second = whole.index(b"aid/Beach")
    archive.write_bytes(whole[:second] + b"b" + whole[second + 1 :])
    refused(archive, tmp_path, "is damaged .*bad checksum")
    archive.write_bytes(whole[:second])
    refused(archive, tmp_path, "is damaged .*empty header")


def test_a_tar_that_ends_with_a_zip_is_a_tar(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", FILES).read_bytes()
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as file:
        info = tarfile.TarInfo("part.zip")
        info.size = len(inner)
        file.addfile(info, io.BytesIO(inner))
    assert unpack(archive, tmp_path / "out") == 1
    assert everything(tmp_path / "out") == {"part.zip": inner}


def test_a_program_that_holds_a_zip_is_a_zip(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", FILES)
    archive.write_bytes(b"#!/bin/sh\nexit\n" + archive.read_bytes())
    assert unpack(archive, tmp_path / "out") == 2


@pytest.mark.parametrize("content", [b"", b"<html>Not found</html>", b"7z\xbc\xaf\x27\x1c" * 200])
def test_another_format_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    refused(tmp_path / "a.zip", tmp_path, "no ZIP or TAR file, or is damaged; fetch it again")


def test_an_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", FILES)
    content = bytearray(archive.read_bytes())
    for start, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        while (place := content.find(start, place + 1)) >= 0:
            content[place + offset] |= 1
    archive.write_bytes(content)
    refused(archive, tmp_path, "is encrypted; unpack it with a program")


def test_an_unknown_compression_is_named(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a.zip", {"a": b"b"})
    content = bytearray(archive.read_bytes())
    content[8] = content[content.index(b"PK\x01\x02") + 10] = 97
    archive.write_bytes(content)
    refused(archive, tmp_path, "has a compression that Python does not read")


# Names


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/b.tif", "a/b.tif"], "'a/b.tif' in .* stands there twice"),
        (["a/b.tif", "a/./b.tif"], r"'a/\./b.tif' in .* stands there twice"),
        (["a", "a/b.tif"], "'a/b.tif' in .* for a file and for a folder"),
        (["a/b.tif", "a"], "'a' in .* for a file and for a folder"),
        (["x" * 300], "is longer than a file system takes"),
        (["x/" * 3000 + "y"], "is not taken by the file system"),
        (["a\nb.tif"], r"'a\\nb.tif' in .* has control characters"),
        (["\x1b[31mred"], r"'\\x1b\[31mred' in .* has control characters"),
        (["\u202egnp.exe"], r"'\\u202egnp.exe' in .* has control characters"),
    ],
)
def test_a_bad_name_is_refused(tmp_path: Path, kind: str, names: list[str], message: str) -> None:
    archive = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as file:
            for name in dict.fromkeys(names):
                file.writestr(name, b"1")
            for name in names[1:] if len(set(names)) < len(names) else ():
                with pytest.warns(UserWarning, match="Duplicate name"):
                    file.writestr(name, b"2")
    else:
        with tarfile.open(archive, "w") as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 1
                tar.addfile(info, io.BytesIO(b"1"))
    refused(archive, tmp_path, message)


@pytest.mark.parametrize("name", ["", ".", "./", "/"])
def test_an_empty_name_is_refused(tmp_path: Path, name: str) -> None:
    archive = tmp_path / "a.tar"
    content = bytearray(tar_header(tarfile.REGTYPE, 0, "????"))
    content[:4] = name.encode().ljust(4, b"\0")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    archive.write_bytes(bytes(content) + bytes(1024))
    refused(archive, tmp_path, f"The name '{name}' in .* is empty")


def test_odd_but_sound_names_are_unpacked(tmp_path: Path) -> None:
    latin = os.fsencode("W") + b"\xe4lder.tif"  # no UTF-8
    files = {"a b.tif": b"1", "ä/森林.tif": b"2", os.fsdecode(latin): b"3", "Icon\r": b""}
    archive = tarred(tmp_path / "a.tar", files)
    assert unpack(archive, tmp_path / "out") == 3
    del files["Icon\r"]
    assert everything(tmp_path / "out") == files


# Sources and targets


def test_a_folder_and_special_files_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, tmp_path, "is a folder; give the downloaded ZIP or TAR file")
    refused(Path("/dev/zero"), tmp_path, "/dev/zero is no regular file")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArchiveError, match="pipe is no regular file"):
        unpack(tmp_path / "pipe", tmp_path / "out")
    with pytest.raises(ArchiveError, match=r"cannot be read .*check its path"):
        unpack(tmp_path / "absent", tmp_path / "out")


def test_targets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a.zip", FILES)
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    with pytest.raises(ArtefactError, match=r"\. is the current folder .*below it with --into"):
        unpack(archive, Path())
    assert unpack(archive, Path("below")) == 2
    (tmp_path / "place").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "place")
    (tmp_path / "dangling").symlink_to(tmp_path / "new")
    for link, target in (("link", "place"), ("dangling", "new")):
        assert unpack(archive, tmp_path / link) == 2
        assert everything(tmp_path / target) == FILES
        assert (tmp_path / link).is_symlink()
    with pytest.raises(ArtefactError, match=r"written \(File name too long\); give another"):
        unpack(archive, tmp_path / ("x" * 300))
    with pytest.raises(ArtefactError, match=r"written \(File exists\); give another"):
        unpack(archive, archive / "below")
    with pytest.raises(ArtefactError, match="exists and is not empty"):
        unpack(archive, archive)


SLOW = """
import sys, time
from rscl_bench.archives import unpack
blocks = unpack._blocks
def slowly(*arguments):
    for block in blocks(*arguments):
        yield block
        print("here", file=sys.stderr, flush=True)
        time.sleep(60)
unpack._blocks = slowly
from rscl_bench.cli import main
main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_a_killed_unpack_leaves_nothing(tmp_path: Path, number: signal.Signals) -> None:
    archive = zipped(tmp_path / "a.zip", FILES)
    out = tmp_path / "data" / "aid"
    command = [sys.executable, "-c", SLOW, "data", "unpack", str(archive), "--into", str(out)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "here\n"
        assert len(list(out.parent.iterdir())) == 2  # the hidden folder and its lock
        # The folder of a living process stays.
        assert unpack(archive, out.with_name("other")) == 2
        assert len(list(out.parent.iterdir())) == 3
        process.send_signal(number)
        expected = -number if number == signal.SIGKILL else 128 + number
        assert process.wait(timeout=60) == expected
    if number != signal.SIGKILL:
        assert [path.name for path in out.parent.iterdir()] == ["other"]
    assert unpack(archive, out) == 2
    assert sorted(path.name for path in out.parent.iterdir()) == ["aid", "other"]


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zipped(tmp_path / "a.zip", FILES)
    result = call("data", "unpack", archive, "--into", tmp_path / "data")
    assert result.exit_code == 0, result.output
    assert result.stdout == f"2 files in {tmp_path / 'data'}\n"
    result = call("data", "unpack", tmp_path / "a.zip", "--into", tmp_path / "data")
    assert result.exit_code == 1
    assert "exists and is not empty" in result.output
    masks = zipped(tmp_path / "m.zip", {"m.tif": bytes(3 << 20)})
    monkeypatch.setattr(unpacking, "_ALLOWANCE", 0)
    result = call("data", "unpack", masks, "--into", tmp_path / "masks")
    assert "raise the limit with --max-ratio" in " ".join(result.output.split())
    result = call("data", "unpack", masks, "--into", tmp_path / "masks", "--max-ratio", "2000")
    assert result.exit_code == 0, result.output
