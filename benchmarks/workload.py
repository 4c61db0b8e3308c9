"""Workloads of the measurements: synthetic tiles, runs of a few steps, training loops."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine.build import build_objective, build_strategies
from rscl_bench.engine.device import Device
from rscl_bench.engine.probing import pixel_scaling
from rscl_bench.engine.stream import make_stream
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.models.compiled import compile_blocks
from rscl_bench.models.optimiser import learning_rate, weight_decay_groups
from rscl_bench.randomness import torch_generator
from rscl_bench.resolve import parse_assignments, resolve_run
from rscl_bench.spec import RunSpec
from rscl_bench.tiles.loader import TileLoader
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.view import View, make_view

#: The paper's ViT-B/16 at 224 px, and the model of scene4's cpu protocol.
MODELS = {"vit-b": ("rs4", "paper"), "cpu": ("scene4", "cpu")}
MANY = 1000  # tasks, more than any measurement trains


def synthetic_store(folder: Path, tiles: int, size: int) -> TileStore:
    """Return a store of random ``uint8`` tiles ``[N, size, size, 3]``, written to a folder."""
    path, shape = folder / "tiles.raw", (tiles, size, size, 3)
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        for start in range(0, tiles, 4096):
            block = (min(4096, tiles - start), *shape[1:])
            random.integers(0, 256, block, dtype=np.uint8).tofile(file)
    return TileStore(
        tiles=np.memmap(path, np.uint8, "r", shape=shape),
        shares=None,
        classes=(),
        mean=np.full(3, 127.0),
        std=np.full(3, 64.0),
        scale=255.0,
        blank=0,
        digest="",
        source_digest="",
        path=folder,
    )


def image_files(folder: Path, count: int, size: int) -> list[Path]:
    """Write random RGB images as uncompressed TIFF, the format of UC Merced; return their paths."""
    random = np.random.default_rng(1)
    paths = [folder / f"{number:05}.tif" for number in range(count)]
    for path in paths:
        Image.fromarray(random.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return paths


def short_run(model: str, method: str, batch: int, *assignments: str) -> RunSpec:
    """Return a run of one epoch a task without warm-up."""
    scenario, protocol = MODELS[model]
    return resolve_run(
        load_scenario(scenario),
        load_method(method),
        protocol,
        0,
        {
            "training.epochs": 1,
            "training.warmup_epochs": 0,
            "training.batch_size": batch,
            "buffer_size": batch,
            **parse_assignments(assignments),
        },
    )


def synchronise(device: Device) -> None:
    if device.torch.type == "cuda":
        torch.cuda.synchronize(device.torch)


def plain_loop(spec: RunSpec, store: TileStore, device: Device) -> Callable[[], float]:
    """Return a function that trains one epoch without Avalanche and returns seconds per step."""
    protocol = spec.protocol
    training = protocol.training
    objective = build_objective(spec, device.torch)
    archive = pixel_scaling(store, (), protocol).to(device.torch)
    optimiser = torch.optim.AdamW(
        weight_decay_groups([objective], training.weight_decay), betas=training.betas, fused=True
    )

    def epoch() -> float:
        tiles_of_task = [(0, torch.arange(len(store)))]
        loader = TileLoader([store], tiles_of_task, training.batch_size, spec.seed, 0)
        size, views = protocol.image_size, protocol.views
        ends = []
        for step, ((_, _, raw),) in enumerate(loader):
            tiles = raw.to(device.torch)
            generator = torch_generator(device.torch, spec.seed, "views", 0, step)
            view, _ = make_view(tiles, View(), size, size, views, archive, generator, generator)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, len(loader), 0, training.learning_rate)
            optimiser.zero_grad()
            with device.autocast():
                generator = torch_generator(device.torch, spec.seed, "objective", 0, step)
                loss = objective([view], generator).loss
            loss.backward()
            optimiser.step()
            synchronise(device)
            ends.append(time.perf_counter())
        return (ends[-1] - ends[0]) / (len(ends) - 1)

    return epoch


class TemplateLoop:
    """Trains tasks on equal tiles with the trainer; a call returns seconds per step."""

    def __init__(self, spec: RunSpec, store: TileStore, device: Device):
        self.objective = build_objective(spec, device.torch)
        if spec.protocol.compile:
            compile_blocks(self.objective)
        stores: Sequence[TileStore] = [store] * MANY
        self.template = SelfSupervisedTrainer(
            objective=self.objective,
            stores=stores,
            scalings=[pixel_scaling(store, (), spec.protocol)] * MANY,
            strategies=build_strategies(spec, self.objective, device.torch),
            protocol=spec.protocol,
            seed=spec.seed,
            device=device.torch,
            autocast=device.autocast,
            on_step=self._on_step,
        )
        self.device = device
        self.experiences = iter(make_stream(stores).streams["train"])
        self.ends: list[float] = []

    def __call__(self) -> float:
        """Train the next task and return the mean seconds per step, without the first step.

        The figure excludes the work of strategies at the start and end of the task.
        """
        self.ends = []
        self.template.train(next(self.experiences), eval_streams=[])
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)

    def _on_step(self, *_: Any) -> None:
        if self.device.torch.type == "cpu" or not self.ends:
            synchronise(self.device)
            self.ends.append(time.perf_counter())
        elif self.template.step == self.template.steps:  # synchronise once, at the end
            synchronise(self.device)
            steps = self.template.steps - 1
            mean = (time.perf_counter() - self.ends[0]) / steps
            self.ends += [self.ends[0] + mean * (number + 1) for number in range(steps)]
