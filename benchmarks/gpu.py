"""Measure one GPU in a few minutes: python -m benchmarks.gpu [--out gpu.json].

The script measures training of MAE ViT-B/16 at 224 px for several batch sizes and with compilation,
CoSMAE's later tasks, lightly's example, encoding and crops. It also measures the device's rate of
matrix products and reports the utilisation of that rate.
"""

import argparse
import json
import time
from itertools import repeat
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from benchmarks.peers import LightlyLoop
from benchmarks.workload import TemplateLoop, short_run, synchronise, synthetic_store
from rscl_bench.engine.device import Device, matrix_flops, open_device
from rscl_bench.engine.flops import count_flops
from rscl_bench.engine.probing import pixel_scaling
from rscl_bench.probes.encoding import EvalContext, TileSubset, encode_tiles
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import RunSpec
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.crops import crops_as_products, draw_crops

PAPER_BATCH = 128
PAST_TASKS = 3


class GPU:
    """Measurements on one device, all on the same tiles."""

    def __init__(self, device: Device, store: TileStore, model: str, past: int):
        self.device, self.store, self.model, self.past = device, store, model, past
        self.rate = matrix_flops(device)
        objective = TemplateLoop(self.spec("finetune", 2), store, device).objective
        self.flops = count_flops(objective, self.spec("finetune", 2).protocol.image_size)

    def spec(self, method: str, batch: int, *assignments: str) -> RunSpec:
        """Return a run of one epoch a task."""
        return short_run(self.model, method, batch, *assignments)

    def training(self, method: str, batch: int, *assignments: str) -> dict[str, Any]:
        """Train tasks until strategies are active and the device is warm, then measure one task."""
        if self.device.torch.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device.torch)
        loop = TemplateLoop(self.spec(method, batch, *assignments), self.store, self.device)
        for _ in range(self.past):
            loop()
        seconds = loop()
        clock, images = loop.template.task_clock, batch / seconds
        return {
            "method": method,
            "batch": batch,
            "set": list(assignments),
            "images_per_second": images,
            "utilisation": images * sum(self.flops) / self.rate,
            "waited_share": clock.waited_seconds[-1] / clock.train_seconds[-1],
            "peak_memory_bytes": torch.cuda.max_memory_allocated(self.device.torch)
            if self.device.torch.type == "cuda"
            else None,
        }

    def peer(self, batch: int, steps: int) -> dict[str, Any]:
        """Train lightly's example in fp32 on views that are already on the device."""
        spec = self.spec("finetune", batch)
        size = spec.protocol.image_size
        views = torch.randn(batch, 3, size, size).to(self.device.torch)
        loop = LightlyLoop(spec, repeat(views), self.device.torch)
        seconds = self._seconds(lambda: loop(steps), lambda: loop(2))
        return {"batch": batch, "images_per_second": batch * steps / seconds}

    def encoding(self) -> float:
        """Return encoded images per second, with reading and resizing."""
        spec = self.spec("finetune", 2)
        encoder = TemplateLoop(spec, self.store, self.device).objective.encoder
        scaling = pixel_scaling(self.store, (), spec.protocol).to(self.device.torch)
        size, views = spec.protocol.image_size, spec.protocol.views
        context = EvalContext(size, views, scaling, self.device.torch, self.device.autocast)
        tiles = TileSubset(self.store, np.arange(len(self.store)))

        def work() -> object:
            return encode_tiles(encoder, tiles, context)

        return len(self.store) / self._seconds(work, work)

    def crops(self, batch: int) -> float:
        """Return images per second of cropping and resizing only."""
        tiles = torch.from_numpy(self.store.tiles[:batch]).to(self.device.torch)
        side, size = tiles.shape[1], self.spec("finetune", 2).protocol.image_size
        generator = torch_generator(self.device.torch, 0)

        def work() -> None:
            for _ in range(10):
                drawn = draw_crops(len(tiles), side, side, (0.2, 1.0), 0.5, generator)
                crops_as_products(tiles, drawn, size)

        return 10 * len(tiles) / self._seconds(work, work)

    def _seconds(self, work: Any, warm: Any) -> float:
        warm()
        synchronise(self.device)
        started = time.perf_counter()
        work()
        synchronise(self.device)
        return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--model", default="vit-b")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 128, 256, 512])
    parser.add_argument("--tiles", type=int, default=4096)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = open_device(options.device, "auto")
    result: dict[str, Any] = {"device": device.name, "precision": device.precision}

    def note(name: str, value: Any) -> None:
        result[name] = value
        print(json.dumps({name: value}), flush=True)  # kept if interrupted
        if options.out:
            options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    with TemporaryDirectory() as folder:
        store = synthetic_store(Path(folder), options.tiles, 256)
        gpu = GPU(device, store, options.model, PAST_TASKS)
        note("torch", torch.__version__)
        note("matrix_flops", gpu.rate)
        note("flops_per_image", gpu.flops._asdict())
        batch = min(PAPER_BATCH, max(options.batches))
        note("finetune", [gpu.training("finetune", size) for size in options.batches])
        note("cosmae", gpu.training("cosmae", batch))
        note("lightly, fp32", gpu.peer(batch, 10))
        note("encoded_images_per_second", gpu.encoding())
        note("cropped_images_per_second", gpu.crops(batch))
        note("compiled", gpu.training("finetune", batch, "compile=true"))


if __name__ == "__main__":
    main()
