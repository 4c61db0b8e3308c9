"""What packing costs over decoding the files once, and what using packed tiles again costs.

Archives are made here: uncompressed TIFFs in the layout of UC Merced, which hardly take decoding,
and JPEGs in that of AID, which do. All lies in memory where there is a file system in it, since the
disk's speed is another matter.
"""

import multiprocessing
import shutil
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.ratio import Ratio, seconds_of
from rscl_bench import registry
from rscl_bench.archives.adapter import sketch_folder
from rscl_bench.archives.files import write_tiff
from rscl_bench.archives.ucmerced import IMAGE_FOLDER, LABEL_FILE, UCMercedAdapter, stored_split
from rscl_bench.cores import usable_cores
from rscl_bench.spec import Source
from rscl_bench.tiles.packing import open_or_pack
from rscl_bench.tiles.workers import MOST_WORKERS

FILES = 400
MEMORY = Path("/dev/shm")
TIFF = Source(dataset="ucmerced", split="train", tile_size=256, cut="whole")
JPEG = Source(
    dataset="aid", split="train", tile_size=200, cut="grid", options={"classes": ["Airport"]}
)


def measure(_device_name: str, rounds: int) -> list[Ratio]:
    """Return packing over decoding, both by as many processes, and second use over packing."""
    found = []
    for source, write in ((TIFF, write_tiffs), (JPEG, write_jpegs)):
        with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as name:
            root, cache = Path(name) / "data", Path(name) / "cache"
            write(root)
            found += _compare(source, root, cache, rounds)
    return found


def _compare(source: Source, root: Path, cache: Path, rounds: int) -> list[Ratio]:
    processes = min(usable_cores(), MOST_WORKERS)

    def use() -> float:
        return seconds_of(lambda: open_or_pack(root, source, cache))

    decode_all(source, root, processes)
    decoding, packing, again = [], [], []
    for _ in range(rounds):
        shutil.rmtree(cache, ignore_errors=True)
        decoding.append(seconds_of(lambda: decode_all(source, root, processes)))
        packing.append(use())
        again.append(use())
    note = f"{median(packing):.2f} s for {FILES} files, {processes} processes"
    dearer = [p / d for p, d in zip(packing, decoding, strict=True)]
    cheaper = [a / p for a, p in zip(again, packing, strict=True)]
    what = f"{source.dataset}'s layout"
    return [
        Ratio("packing", f"packing over decoding once, {what}", dearer, most=1.2, note=note),
        Ratio("packing", f"second use over packing, {what}", cheaper, most=0.05),
    ]


def decode_all(source: Source, root: Path, processes: int) -> None:
    """Decode every file once and keep nothing: no process waits for another."""
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(target=_decode, args=(source, root, number, processes))
        for number in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert all(process.exitcode == 0 for process in started)


def _decode(source: Source, root: Path, first: int, step: int) -> None:
    torch.set_num_threads(1)
    adapter = registry.load("datasets", source.dataset)(root, source.split, source.options)
    for index in range(first, len(adapter), step):
        adapter.scene(index)


def _noise(random: np.random.Generator, side: int) -> NDArray[np.uint8]:
    """Return smooth noise ``[side, side, 3]``, which compresses about as images do."""
    coarse = random.integers(0, 224, (side // 8, side // 8, 3), dtype=np.uint8)
    pixels: NDArray[np.uint8] = coarse.repeat(8, axis=0).repeat(8, axis=1)
    return pixels + random.integers(0, 32, pixels.shape, dtype=np.uint8)


def write_tiffs(data_root: Path) -> None:
    random = np.random.default_rng(0)
    names = [name for name, split in stored_split().items() if split == "train"][:FILES]
    with sketch_folder(data_root / UCMercedAdapter.folder) as root:
        classes = UCMercedAdapter.classes
        rows = ["\t".join(("IMAGE\\LABEL", *classes))]
        for name in names:
            path = root / IMAGE_FOLDER / name[:-2] / f"{name}.tif"
            write_tiff(path, _noise(random, 256), interleave="pixel")
            rows.append("\t".join((name, *random.choice(["0", "1"], len(classes)))))
        (root / LABEL_FILE).write_text("\n".join(rows) + "\n", encoding="utf-8")


def write_jpegs(data_root: Path) -> None:
    random = np.random.default_rng(0)
    folder = data_root / "aid" / "AID" / "Airport"
    folder.mkdir(parents=True)
    for number in range(1, FILES + 1):
        Image.fromarray(_noise(random, 600)).save(folder / f"airport_{number}.jpg", quality=90)
