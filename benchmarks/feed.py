"""Raw batches: the tile store, a loader over image files, WebDataset; and training from them."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import webdataset
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.peers import ImageFiles, LightlyLoop, endless, mae_files
from benchmarks.ratio import Ratio, in_turn, milliseconds, over, seconds_of
from benchmarks.workload import TemplateLoop, image_files, short_run, synthetic_store
from rscl_bench.cores import usable_cores
from rscl_bench.engine.device import open_device
from rscl_bench.tiles.loader import TileLoader
from rscl_bench.tiles.prefetch import Prefetcher

IMAGES, SIDE, BATCH = 1024, 256, 128
FEW = 8  # images of a step that is trained end to end


def measure(device_name: str, rounds: int) -> list[Ratio]:
    """Return the ratios of reading batches, and of training from tiles and from files."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        paths = image_files(folder, IMAGES, SIDE)
        store = synthetic_store(folder, IMAGES, SIDE)
        tiles = [(0, torch.arange(IMAGES))]
        feed = Prefetcher(TileLoader([store], tiles, BATCH, 0, 0), torch.device("cpu"))
        loader = DataLoader(
            ImageFiles(paths, _pixels),
            BATCH,
            shuffle=True,
            num_workers=usable_cores(),
            persistent_workers=True,
        )
        ours, files = in_turn(_through(feed), _through(loader), rounds)
        note = f"{milliseconds(ours, IMAGES)} an image, files {milliseconds(files, IMAGES)}"
        found = [
            Ratio("feed", "loader over TIFF files over tiles", over(files, ours), 15, note=note)
        ]
        ours, shards = in_turn(_through(feed), _through(_webdataset(folder, paths)), rounds)
        found.append(Ratio("feed", "WebDataset over tiles", over(shards, ours)))
        found.append(_end_to_end(device_name, rounds, folder, paths))
    return found


def _pixels(image: Image.Image) -> torch.Tensor:
    """Return an image as ``[H, W, C]`` uint8."""
    return torch.from_numpy(np.array(image))


def _through(batches: Any) -> Callable[[], object]:
    def read() -> None:
        for _ in batches:
            pass

    return read


def _webdataset(folder: Path, paths: list[Path]) -> Any:
    """Return WebDataset's loader over shards of the same files."""
    shards = usable_cores()
    for number in range(shards):
        with tarfile.open(folder / f"shard{number}.tar", "w") as shard:
            for path in paths[number::shards]:
                shard.add(path, path.name)
    urls = str(folder / f"shard{{0..{shards - 1}}}.tar")

    def pixels(sample: dict[str, Any]) -> torch.Tensor:
        return _pixels(Image.open(io.BytesIO(sample["tif"])))

    dataset = webdataset.WebDataset(urls, shardshuffle=False).shuffle(BATCH).map(pixels)
    batched = dataset.batched(BATCH, collation_fn=torch.stack)
    return webdataset.WebLoader(batched, batch_size=None, num_workers=shards)


def _end_to_end(device_name: str, rounds: int, folder: Path, paths: list[Path]) -> Ratio:
    """Train a few steps from tiles, and as lightly's example does from files."""
    device = open_device(device_name, "auto")
    spec = short_run("vit-b", "finetune", FEW)
    steps = 5
    ours = TemplateLoop(spec, synthetic_store(folder, FEW * steps, SIDE), device)
    batches = endless(mae_files(paths, spec.protocol.image_size, FEW, usable_cores()))
    theirs = LightlyLoop(spec, batches, device.torch)
    ours()
    theirs(1)
    times = [(ours(), seconds_of(lambda: theirs(steps - 1)) / (steps - 1)) for _ in range(rounds)]
    values = [b / a for a, b in times]
    return Ratio("feed", "lightly's example from files over a run from tiles", values, 2)
