"""Speed of encoding and of ML-kNN, and the share of a task's time that probing takes."""

import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.ratio import Ratio, seconds_of
from benchmarks.workload import TemplateLoop, short_run, synthetic_store
from rscl_bench.engine.device import open_device, resident_peak
from rscl_bench.engine.probing import pixel_scaling
from rscl_bench.probes.encoding import EvalContext, TileSubset, encode_tiles
from rscl_bench.probes.ml_knn import MLkNNParams, MLkNNProbe

BATCH, STEPS, WIDTH = 8, 4, 768
PAPER_PROBE = 2100  # tiles of UC Merced, encoded after every task by the probe of rs4
PAPER_TASK = 10_000 * 300  # tiles times epochs, fewer than in any task of rs4


def measure(device_name: str, rounds: int) -> list[Ratio]:
    """Return the ratios of probing."""
    device = open_device(device_name, "auto")
    spec = short_run("vit-b", "finetune", BATCH)
    with TemporaryDirectory() as name:
        store = synthetic_store(Path(name), BATCH * STEPS, 256)
        loop = TemplateLoop(spec, store, device)
        protocol = spec.protocol
        scaling = pixel_scaling(store, (), protocol).to(device.torch)
        context = EvalContext(
            protocol.image_size, protocol.views, scaling, device.torch, device.autocast
        )
        tiles = TileSubset(store, np.arange(len(store)))
        encoder = loop.objective.encoder
        loop()
        encode_tiles(encoder, tiles, context)
        train, encode = [], []
        for _ in range(rounds):
            train.append(loop() / BATCH)
            encode.append(seconds_of(lambda: encode_tiles(encoder, tiles, context)) / len(store))
    faster = [a / b for a, b in zip(train, encode, strict=True)]
    share = [e * PAPER_PROBE / (t * PAPER_TASK) for t, e in zip(train, encode, strict=True)]
    knn = [ml_knn_seconds(1000, 800, 17) for _ in range(rounds + 1)][1:]
    note = f"{1 / median(train):.3g} images/s trained, {1 / median(encode):.3g} encoded"
    return [
        Ratio("probing", "encoding over training, images/s", faster, 2.5, note=note),
        Ratio("probing", "probing over training a task, rs4's paper protocol", share, most=0.03),
        Ratio("probing", "ML-kNN of 1,000, 800, 17 over 50 ms", [t / 0.05 for t in knn], most=1),
        Ratio("probing", "resident set, 50,000 over 5,000 training rows", [_memory()], most=3),
    ]


def ml_knn_seconds(rows: int, queries: int, labels: int) -> float:
    """Return the time in seconds of scoring random features ``[queries, 768]``."""
    random = np.random.default_rng(0)
    features = random.standard_normal((rows + queries, WIDTH)).astype(np.float32)
    truth = (random.random((rows, labels)) < 0.2).astype(np.uint8)
    probe = MLkNNProbe(MLkNNParams())
    return seconds_of(lambda: probe.score(features[:rows], truth, features[rows:]))


def _memory() -> float:
    peaks = []
    for rows in (5_000, 50_000):
        command = [sys.executable, "-m", "benchmarks.probing", str(rows)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        peaks.append(int(output))
    return peaks[1] / peaks[0]


if __name__ == "__main__":
    ml_knn_seconds(int(sys.argv[1]), 800, 17)
    print(resident_peak())
