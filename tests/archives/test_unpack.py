"""Archives that try to write elsewhere, or too much."""

import io
import random
import stat
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

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


def everything(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_sound_archive(tmp_path: Path, kind: str) -> None:
    archive = (zipped if kind == "zip" else tarred)(tmp_path / f"a.{kind}", FILES)
    assert unpack(archive, tmp_path / "out") == 2
    assert everything(tmp_path / "out") == FILES
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o755
    with pytest.raises(ArtefactError, match="exists and is not empty"):
        unpack(archive, tmp_path / "out")


def refused(archive: Path, tmp_path: Path, message: str) -> None:
    before = everything(tmp_path)
    with pytest.raises(ArchiveError, match=message):
        unpack(archive, tmp_path / "inner" / "out")
    (tmp_path / "inner").rmdir()  # it is empty
    assert everything(tmp_path) == before


OUTSIDE = ["../evil", "/evil", "a/../../evil", "..\\evil", "C:evil", "a/../evil"]


@pytest.mark.parametrize("name", OUTSIDE)
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_nothing_is_written_outside(tmp_path: Path, kind: str, name: str) -> None:
    make = zipped if kind == "zip" else tarred
    archive = make(tmp_path / f"a.{kind}", {**FILES, name: b"evil"})
    refused(archive, tmp_path, "would be written outside of the folder")
    assert not Path("/evil").exists()


@pytest.mark.parametrize("mode", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_links_and_devices_of_a_zip(tmp_path: Path, mode: int) -> None:
    archive = zipped(tmp_path / "a.zip", {"link": b"/etc/passwd"}, mode | 0o644)
    refused(archive, tmp_path, "'link', which is neither file nor folder")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_links_and_devices_of_a_tar(tmp_path: Path, kind: bytes) -> None:
    archive = tarred(tmp_path / "a.tar", {"link": b""}, type=kind, linkname="/etc/passwd")
    refused(archive, tmp_path, "'link', which is neither file nor folder")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_bomb_stops_at_a_cap(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """1000 to 1, as zeros are compressed; with the real spare room it takes 64 MiB more."""
    monkeypatch.setattr(unpacking, "_SPARE", 0)
    make = zipped if kind == "zip" else tarred
    archive = make(tmp_path / f"a.{kind}", {"zeros": bytes(50_000_000)})
    assert archive.stat().st_size * 900 < 50_000_000
    refused(archive, tmp_path, "grows beyond 20 times its size at 'zeros'")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_damaged_archive(tmp_path: Path, kind: str) -> None:
    archive = (zipped if kind == "zip" else tarred)(tmp_path / f"a.{kind}", FILES)
    whole = archive.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 30):
        archive.write_bytes(whole[:size])
        refused(archive, tmp_path, "is damaged|is neither a ZIP nor a TAR file")


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_flipped_bits_are_refused_or_harmless(tmp_path: Path, kind: str) -> None:
    archive = (zipped if kind == "zip" else tarred)(tmp_path / f"a.{kind}", FILES)
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
