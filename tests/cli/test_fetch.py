"""`rscl-bench data fetch` against a loopback server: classes of TorchGeo, and other adapters."""

import errno
import hashlib
import io
import os
import signal
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.cli import call, error_lines, refused, spawn
from helpers.web import Page, Web, serving
from torchgeo.datasets import EuroSAT, TreeSatAI, UCMerced

import rscl_bench as rb
from rscl_bench import registry
from rscl_bench.archives import download, unpack
from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.torchgeo import downloads
from rscl_bench.archives.treesatai import TreeSatAIAdapter
from rscl_bench.archives.ucmerced import UCMercedAdapter
from rscl_bench.errors import ArchiveError, SpecError

ADAPTER = '''
from pathlib import Path

import numpy as np

from rscl_bench.archives.adapter import DatasetAdapter, Scene
from rscl_bench.archives.download import RemoteFile
from rscl_bench.sensors import RGB8


class Served(DatasetAdapter):
    """Images of one folder."""

    name = "served"
    folder = "served"
    title = "Served"
    sensor = RGB8
    classes = ("only",)
    splits = ("train", "test")
    source = "https://example.org/served"
    licence = "CC BY 4.0"
    layout = "images/SPLIT/*.tif"

    @classmethod
    def remote_files(cls, split, options):
        return [RemoteFile("URL/served.zip", "served.zip", "DIGEST", unpack_into="images")]

    def _list_files(self) -> list[Path]:
        return sorted((self.root / "images" / self.split).glob("*.tif"))

    def _read(self, index: int, with_labels: bool) -> Scene:
        return Scene(self.read_image(self.files[index]), labels=np.ones(1, np.uint8))
'''
SCENARIO = """
name = "served"
version = "1"
title = "One archive"
default_protocol = "tiny"

[[tasks]]
name = "first"
dataset = "DATASET"
split = "train"
tile_size = 16

[[probes]]
name = "probe"
dataset = "DATASET"
tile_size = 16

[protocols.tiny]
image_size = 16
backbone = { name = "vit", patch_size = 8, embed_dim = 24, depth = 1, num_heads = 2 }
training = { epochs = 1, batch_size = 8, learning_rate = 1e-3, warmup_epochs = 0.5 }
"""
_CLASSES = ("AnnualCrop", "Forest")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setattr(download, "PAUSE", 0.001)
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with serving() as server:
        yield server


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def image(folder: Path, bands: int, seed: int) -> bytes:
    rng, path = np.random.default_rng(seed), folder / "image.tif"
    dtype = np.uint8 if bands == 3 else np.uint16
    write_tiff(path, rng.integers(1, 200, (16, 16, bands)).astype(dtype))
    content = path.read_bytes()
    path.unlink()
    return content


def digest(content: bytes, algorithm: str = "sha256") -> str:
    return hashlib.new(algorithm, content, usedforsecurity=False).hexdigest()


@pytest.fixture
def served(web: Web, tmp_path: Path) -> Path:
    """A scenario of an adapter whose archive the server has."""
    names = [f"{split}/{number}.tif" for split in ("train", "test") for number in range(3)]
    content = zipped({name: image(tmp_path, 3, seed) for seed, name in enumerate(names)})
    web.pages["/served.zip"] = Page(content)
    code = ADAPTER.replace("URL", web.url).replace("DIGEST", f"sha256:{digest(content)}")
    (tmp_path / "served.py").write_text(code, encoding="utf-8")
    scenario = tmp_path / "served.toml"
    scenario.write_text(SCENARIO.replace("DATASET", "served.py:Served"), encoding="utf-8")
    return scenario


def below(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def test_archive_is_fetched_unpacked_and_opened(served: Path, web: Web, tmp_path: Path) -> None:
    root = tmp_path / "data"
    result = call("data", "fetch", served, "--data-root", root, "--yes")
    assert result.exit_code == 0, result.output
    size = len(web.pages["/served.zip"].content) / 1e9
    for line in (
        "Served (served)",
        "  licence: CC BY 4.0",
        "  source:  https://example.org/served",
        f"  files:   1, {size:.2f} GB, from 127.0.0.1",
        f"  into:    {root / 'served'}",
        f"unpacking {root / 'served' / 'served.zip'}",
        f"Served: complete in {root / 'served'}",
    ):
        assert line in result.output.splitlines()
    images = [f"images/{split}/{i}.tif" for split in ("test", "train") for i in range(3)]
    assert below(root / "served") == [*images, "served.zip"]
    web.asked.clear()
    again = call("data", "fetch", served, "--data-root", root)  # nothing is asked of the user
    assert again.exit_code == 0
    assert f"Served, split 'train': complete in {root / 'served'}" in again.output.splitlines()
    assert not web.asked


def test_nothing_is_downloaded_without_agreement(served: Path, web: Web, tmp_path: Path) -> None:
    result = call("data", "fetch", served, "--data-root", tmp_path / "data")
    assert result.exit_code == 1
    assert "  licence: CC BY 4.0" in result.output.splitlines()
    assert error_lines(result)[-1].endswith("add --yes to agree with the licences.")
    assert not web.gets()
    assert not (tmp_path / "data").exists()


def test_scenario_is_named_once(served: Path, tmp_path: Path) -> None:
    options = ("--data-root", tmp_path / "data", "--yes")
    assert call("data", "fetch", "--scenario", served, *options).exit_code == 0
    assert "Name one scenario" in refused("data", "fetch", *options)
    assert "Name one scenario" in refused("data", "fetch", "rs4", "--scenario", "rs4", *options)


def test_disk_that_is_full_while_unpacking(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(unpack, "_write", full)
    folder = tmp_path / "data" / "served"
    result = call("data", "fetch", served, "--data-root", tmp_path / "data", "--yes")
    assert result.exit_code == 1
    assert error_lines(result)[-1] == (
        f"error: {folder / 'served.zip'} cannot be unpacked into {folder / 'images'} (No space left"
        " on device); make room, or give another folder with --data-root."
    )
    assert below(folder) == ["served.zip"]
    monkeypatch.undo()
    assert call("data", "fetch", served, "--data-root", tmp_path / "data", "--yes").exit_code == 0


def test_no_is_no(served: Path, web: Web, tmp_path: Path) -> None:
    seen = []

    def no(archives: Any) -> bool:
        seen.extend(archives)
        return False

    with pytest.raises(ArchiveError, match="licences were not agreed to"):
        rb.fetch(served, data_root=tmp_path / "data", agree=no, verbose=False)
    assert [archive.size for archive in seen] == [len(web.pages["/served.zip"].content)]
    assert not web.gets()


def test_run_never_downloads(served: Path, web: Web, tmp_path: Path) -> None:
    options = ("--data-root", tmp_path / "data", "--out", tmp_path / "runs", "--device", "cpu")
    sentence = refused("run", "--scenario", served, "--method", "finetune", *options)
    assert "The archive of Served is missing or partial" in sentence
    assert not web.asked


def test_signal_keeps_what_has_arrived(served: Path, web: Web, tmp_path: Path) -> None:
    page = web.pages["/served.zip"]
    page.dies_after, page.waits = [2000], True
    part = tmp_path / "data" / "served" / ".served.zip.part"
    arguments = ("data", "fetch", served, "--data-root", tmp_path / "data", "--yes")
    with spawn(*arguments) as process:
        for _ in range(600):
            if part.exists() and part.stat().st_size == 2000:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    web.stop.set()
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.splitlines()[-1] == (
        "interrupted by SIGTERM; the same command resumes from what has arrived"
    )
    page.waits = False
    assert call(*arguments).exit_code == 0
    assert web.gets() == ["", "bytes=2000-"]


def test_same_command_resumes(served: Path, web: Web, tmp_path: Path) -> None:
    page = web.pages["/served.zip"]
    page.dies_after = [1000, 0, 0, 0, 0, 0]
    arguments = ("data", "fetch", served, "--data-root", tmp_path / "data", "--yes")
    sentence = error_lines(call(*arguments))[-1]
    assert sentence.endswith(
        f"1000 of {len(page.content)} bytes; the same command resumes the download."
    )
    page.dies_after.clear()
    assert call(*arguments).exit_code == 0
    assert web.gets()[-1] == "bytes=1000-"


def test_wrong_digest_leaves_nothing(served: Path, web: Web, tmp_path: Path) -> None:
    web.pages["/served.zip"].content = b"PK" + bytes(5000)
    result = call("data", "fetch", served, "--data-root", tmp_path / "data", "--yes")
    assert result.exit_code == 1
    assert "the download was removed" in error_lines(result)[-1]
    assert below(tmp_path / "data") == []


@pytest.mark.parametrize("name", ["../out.tif", "/abs.tif"])
def test_archive_that_writes_elsewhere_is_refused(
    name: str, served: Path, web: Web, tmp_path: Path
) -> None:
    evil = zipped({name: b"x"})
    code = tmp_path / "served.py"
    text = code.read_text(encoding="utf-8")
    code.write_text(
        text.replace(digest(web.pages["/served.zip"].content), digest(evil)), encoding="utf-8"
    )
    web.pages["/served.zip"] = Page(evil)
    result = call("data", "fetch", served, "--data-root", tmp_path / "data", "--yes")
    assert result.exit_code == 1
    found = [path.name for path in tmp_path.rglob("*.tif")]
    assert "out.tif" not in found


def test_file_that_is_gone_is_one_sentence(served: Path, web: Web, tmp_path: Path) -> None:
    web.pages.clear()
    sentence = refused("data", "fetch", served, "--data-root", tmp_path / "data", "--yes")
    assert sentence.startswith(f"Served cannot be downloaded: {web.url}/served.zip does not exist")


def test_archive_to_fetch_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    result = call("data", "fetch", "scene4", "--data-root", tmp_path)
    assert result.exit_code == 1
    assert "Fetch it from https://github.com/palewithout/RSSCN7 (licence: " in result.output
    assert f" into {tmp_path / 'aid'} as AID/Airport/airport_1.jpg" in result.output


def test_data_root_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RSCL_DATA_ROOT", raising=False)
    assert "--data-root, or set RSCL_DATA_ROOT" in refused("data", "fetch", "scene4", "--yes")


# TorchGeo


@pytest.fixture
def eurosat(web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A scenario of TorchGeo's EuroSAT, whose address is the server's."""
    names = {
        split: [f"{cls}_{i}" for cls in _CLASSES for i in (2 * k + 1, 2 * k + 2)]
        for k, split in enumerate(("train", "val", "test"))
    }
    content = zipped(
        {
            f"{EuroSAT.base_dir}/{name.split('_')[0]}/{name}.tif": image(tmp_path, 13, seed)
            for seed, name in enumerate(name for split in names.values() for name in split)
        }
    )
    lists = {s: "\n".join(f"{name}.jpg" for name in names[s]).encode() for s in names}
    web.pages["/EuroSATallBands.zip"] = Page(content)
    for split, text in lists.items():
        web.pages[f"/{EuroSAT.split_filenames[split]}"] = Page(text, kind="text/plain")
    # The adapter is made once in a process: other tests need it with its true address.
    registry.load("datasets", "torchgeo:EuroSAT")
    monkeypatch.setattr(EuroSAT, "url", f"{web.url}/")
    algorithm = "sha256" if hasattr(EuroSAT, "sha256") else "md5"
    monkeypatch.setattr(EuroSAT, algorithm, digest(content, algorithm))
    digests = {split: digest(text, algorithm) for split, text in lists.items()}
    monkeypatch.setattr(EuroSAT, f"split_{algorithm}s", digests)
    scenario = tmp_path / "eurosat.toml"
    scenario.write_text(SCENARIO.replace("DATASET", "torchgeo:EuroSAT"), encoding="utf-8")
    return scenario


def test_torchgeo_dataset_is_fetched_and_runs(
    eurosat: Path, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.pages["/EuroSATallBands.zip"].dies_after = [5000]
    root = tmp_path / "data"
    result = call("data", "fetch", eurosat, "--data-root", root, "--yes")
    assert result.exit_code == 0, result.output
    assert "  licence: MIT" in result.output.splitlines()
    assert "  files:   3, " in result.output
    assert f"bytes={5000}-" in web.gets()
    found = below(root / "eurosat")
    assert len([name for name in found if name.endswith(".tif")]) == 12
    assert {"EuroSATallBands.zip", "eurosat-test.txt", "eurosat-train.txt"} < set(found)
    monkeypatch.setenv("RSCL_CACHE", str(tmp_path / "cache"))
    stores = rb.open_tiles(eurosat, data_root=root, verbose=False)
    assert [len(store) for store in stores.values()] == [4, 4, 4]


def test_torchgeo_file_of_another_digest_is_refused(
    eurosat: Path, web: Web, tmp_path: Path
) -> None:
    web.pages["/eurosat-train.txt"].content += b"\nForest_9.jpg"
    result = call("data", "fetch", eurosat, "--data-root", tmp_path / "data", "--yes")
    assert result.exit_code == 1
    assert "eurosat-train.txt has the " in error_lines(result)[-1]


@pytest.mark.parametrize(
    ("part", "count"),
    [
        ("EuroSAT", 2),
        ("LoveDA", 1),
        ("UCMerced", 4),
        ("RESISC45", 4),
        ("TreeSatAI", 26),
        ("SeasonalContrastS2", 1),
        ("OSCD", 3),
        ("PatternNet", 1),
        ("FireRisk", 1),
        ("BigEarthNetV2", 6),
        ("LandCoverAI", 4),
        ("DIOR", 3),
    ],
)
def test_files_of_torchgeo_classes(part: str, count: int) -> None:
    """What a class asks for is noted without a connection."""
    split = {} if part in ("PatternNet", "SeasonalContrastS2") else {"split": "train"}
    files = downloads.files_of(part, split)
    assert len(files) == count
    for file in files:
        assert file.url.startswith("https://")
        assert file.digest.startswith(("md5:", "sha256:")) or file.path == "sample_df.csv"
        assert file.url.partition("?")[0].endswith(f"/{file.path}") or part == "OSCD"
    assert len({file.path for file in files}) == count


def test_torchgeo_class_that_needs_a_program() -> None:
    with pytest.raises(ArchiveError, match="downloads with the program azcopy, which `data fetch`"):
        downloads.files_of("TropicalCyclone", {"split": "train"})


def test_torchgeo_class_that_needs_a_program_does_not_stop_others(
    eurosat: Path, web: Web, tmp_path: Path
) -> None:
    cyclone = SCENARIO.split("[[tasks]]")[1].split("[[probes]]")[0]
    cyclone = cyclone.replace("DATASET", "torchgeo:TropicalCyclone").replace("first", "second")
    text = eurosat.read_text(encoding="utf-8")
    tasks = f'[[tasks]]{cyclone}options.sensor = "rgb8"\n\n[[probes]]'
    eurosat.write_text(text.replace("[[probes]]", tasks), encoding="utf-8")
    result = call("data", "fetch", eurosat, "--data-root", tmp_path / "data", "--yes")
    assert result.exit_code == 1
    (sentence,) = error_lines(result)
    assert "TropicalCyclone downloads with the program azcopy" in sentence
    assert f"into {tmp_path / 'data' / 'tropicalcyclone'} as " in sentence
    assert (tmp_path / "data" / "eurosat" / "EuroSATallBands.zip").is_file()


def test_torchgeo_class_that_connects_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def verify(_: Any) -> None:
        with socket.socket() as opened:
            opened.connect(("127.0.0.1", 9))

    monkeypatch.setattr(EuroSAT, "_verify", verify)
    with pytest.raises(ArchiveError, match="EuroSAT downloads by code of its own"):
        downloads.files_of("EuroSAT", {"split": "train"})


def test_torchgeo_class_without_download() -> None:
    assert downloads.files_of("Potsdam2D", {"split": "train"}) == []


# Adapters of this package


def test_treesatai_and_ucmerced_declare_what_torchgeo_knows() -> None:
    files = TreeSatAIAdapter.remote_files("train", {})
    assert {file.url for file in files} < {TreeSatAI.url + name for name in TreeSatAI.md5s}
    assert [file.path for file in files if file.unpack_into is None] == [
        "test_filenames.lst",
        "train_filenames.lst",
    ]
    assert {file.unpack_into for file in files} == {"aerial/60m", ".", None}
    (images,) = UCMercedAdapter.remote_files("train", {})
    assert images.url == UCMerced.url + "UCMerced_LandUse.zip"
    assert images.digest


def test_fetch_without_scenario_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="Unknown scenario"):
        rb.fetch("nothing", data_root=tmp_path, agree=lambda _: True, verbose=False)


def test_a_class_that_fails_before_it_asks_for_a_file_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(self: object, root: str, split: str, download: bool = False) -> None:
        raise ValueError("no such year")

    monkeypatch.setattr(EuroSAT, "__init__", fail)
    with pytest.raises(ArchiveError, match=r"does not tell what .*ValueError: no such year"):
        downloads.files_of("EuroSAT", {"split": "train"})
