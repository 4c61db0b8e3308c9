"""What packing costs over decoding the files once, of RGB TIFFs in the layout of UC Merced.

python -m benchmarks.packing                     # on the disk of the temporary folder
python -m benchmarks.packing --folder /data/tmp
"""

import argparse
import json
import multiprocessing
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from rscl_bench.data.cutting import MOST_WORKERS, usable_cores
from rscl_bench.data.datasets.archive import sketch_folder, write_tiff
from rscl_bench.data.datasets.ucmerced import UCMercedAdapter, UCMercedMultiLabel, stored_split
from rscl_bench.data.packing import open_or_pack
from rscl_bench.spec import Source

SIZE, ROUNDS = 256, 5


def write_archive(data_root: Path, files: int) -> None:
    """Write uncompressed tiles of smooth noise, as the archive's are, under its names."""
    rng = np.random.default_rng(0)
    names = [name for name, split in stored_split().items() if split == "train"][:files]
    with sketch_folder(data_root, UCMercedAdapter.folder) as root:
        rows = ["\t".join(("IMAGE\\LABEL", *UCMercedMultiLabel.classes))]
        for name in names:
            coarse = rng.integers(0, 224, (SIZE // 8, SIZE // 8, 3), dtype=np.uint8)
            pixels = coarse.repeat(8, axis=0).repeat(8, axis=1)
            pixels += rng.integers(0, 32, pixels.shape, dtype=np.uint8)
            path = root / UCMercedMultiLabel.base_dir / name[:-2] / f"{name}.tif"
            write_tiff(path, pixels, interleave="pixel")
            rows.append("\t".join((name, *rng.choice(["0", "1"], len(UCMercedMultiLabel.classes)))))
        table = root / UCMercedMultiLabel.label_file
        table.write_text("\n".join(rows) + "\n", encoding="utf-8")


def decode(data_root: Path, first: int, step: int) -> None:
    torch.set_num_threads(1)
    adapter = UCMercedAdapter(data_root, "train")
    for index in range(first, len(adapter), step):
        adapter.scene(index)


def decode_all(data_root: Path, processes: int) -> None:
    """Decode every file once and keep nothing: no process waits for another."""
    context = multiprocessing.get_context("fork")
    started = [
        context.Process(target=decode, args=(data_root, number, processes))
        for number in range(processes)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
    assert all(process.exitcode == 0 for process in started)


def cost(work: Callable[[], Any]) -> tuple[float, float, float]:
    """Return seconds: on the clock, of this process, of its children."""
    whos = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)

    def used() -> list[float]:
        usages = (resource.getrusage(who) for who in whos)
        return [usage.ru_utime + usage.ru_stime for usage in usages]

    before, started = used(), time.perf_counter()
    work()
    clock = time.perf_counter() - started
    here, children = (after - first for after, first in zip(used(), before, strict=True))
    return clock, here, children


def measure(folder: Path, files: int = 400) -> dict[str, Any]:
    """Measure packing and decoding in turn, files in the page cache.

    Args:
        folder: Where to put the archive and the cache; what is written is removed.
        files: Number of images, at most 1,000.

    Returns:
        The median ratio of packing to decoding once with as many processes and every single one;
        the same of the processors' time, which a busy machine disturbs less; the time of opening
        what is packed over that of packing it; seconds.
    """
    with TemporaryDirectory(dir=folder) as name:
        root, cache = Path(name) / "data", Path(name) / "cache"
        write_archive(root, files)
        source = Source(dataset="ucmerced", split="train", tile_size=SIZE, cut="whole")
        processes = min(usable_cores(), MOST_WORKERS)
        decode_all(root, processes)
        packing, decoding, opening = [], [], []
        for _ in range(ROUNDS):
            shutil.rmtree(cache, ignore_errors=True)
            decoding.append(cost(lambda: decode_all(root, processes)))
            packing.append(cost(lambda: open_or_pack(root, source, cache)))
            opening.append(cost(lambda: open_or_pack(root, source, cache)))
    clock = [pack[0] / once[0] for pack, once in zip(packing, decoding, strict=True)]
    processors = [sum(p[1:]) / sum(d[1:]) for p, d in zip(packing, decoding, strict=True)]
    again = [use[0] / pack[0] for use, pack in zip(opening, packing, strict=True)]
    return {
        "files": files,
        "processes": processes,
        "packing over decoding": round(median(clock), 3),
        "single ratios": [round(ratio, 3) for ratio in clock],
        "the same, processors' time": round(median(processors), 3),
        "single ratios, processors' time": [round(ratio, 3) for ratio in processors],
        "second use over packing": round(median(again), 4),
        "packing, seconds": round(median(value[0] for value in packing), 3),
        "packing, processors' seconds here": round(median(value[1] for value in packing), 3),
        "packing, processors' seconds of workers": round(median(v[2] for v in packing), 3),
        "decoding, seconds": round(median(value[0] for value in decoding), 3),
        "decoding, processors' seconds": round(median(sum(v[1:]) for v in decoding), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--folder", type=Path, help="Where to write; by default a temporary one.")
    parser.add_argument("--files", type=int, default=400)
    options = parser.parse_args()
    with TemporaryDirectory(dir=options.folder) as name:
        print(json.dumps(measure(Path(name), options.files), indent=2))


if __name__ == "__main__":
    main()
