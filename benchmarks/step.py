"""What a training step costs: each method, and a plain loop, over fine-tuning with the template.

Method and fine-tuning take turns in one process, on the same synthetic tiles and with three past
tasks, so that a drift of the machine's speed meets both; what is printed are ratios of medians.

    python -m benchmarks.step                             # ViT-B/16 at 224 px, the paper's model
    python -m benchmarks.step --model cpu --batch 16      # the model of scene4's cpu protocol
    python -m benchmarks.step --methods ewc --batch 32    # some methods
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from rscl_bench.data.stream import TileLoader, make_stream
from rscl_bench.data.tile_store import TileStore
from rscl_bench.data.views import View, make_view
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine.device import Device, open_device
from rscl_bench.engine.probing import archive_of
from rscl_bench.engine.run import build_objective, build_strategies
from rscl_bench.engine.template import SelfSupervisedTemplate
from rscl_bench.models.optimiser import learning_rate, weight_decay_groups
from rscl_bench.randomness import torch_generator
from rscl_bench.resolve import resolve_run
from rscl_bench.spec import RunSpec

PLAIN = "plain-loop"
METHODS = [PLAIN, "er", "lump", "ewc", "si", "der", "pfr", "cassle-mae", "cosmae"]
PAST_TASKS = 3
MANY = 1000  # more tasks than rounds
MODELS = {"vit-b": ("rs4", "paper"), "cpu": ("scene4", "cpu")}


def synthetic_store(folder: Path, tiles: int, size: int) -> TileStore:
    pixels = np.random.default_rng(0).integers(0, 256, (tiles, size, size, 3), dtype=np.uint8)
    path = folder / "tiles.raw"
    pixels.tofile(path)
    return TileStore(
        tiles=np.memmap(path, np.uint8, "r", shape=pixels.shape),
        shares=None,
        classes=(),
        mean=np.full(3, 127.0),
        std=np.full(3, 64.0),
        scale=255.0,
        blank=0,
        digest="",
        path=folder,
    )


def plain_loop(spec: RunSpec, store: TileStore, device: Device) -> Callable[[], float]:
    """Return a function that trains one epoch without Avalanche; it gives seconds per step."""
    protocol = spec.protocol
    training = protocol.training
    objective = build_objective(spec, device.torch)
    archive = archive_of(store, (), protocol).to(device.torch)
    optimiser = torch.optim.AdamW(
        weight_decay_groups([objective], training.weight_decay), betas=training.betas, fused=True
    )

    def epoch() -> float:
        tiles_of_task = [(0, torch.arange(len(store)))]
        loader = TileLoader([store], tiles_of_task, training.batch_size, spec.seed, 0)
        ends = []
        for step, ((_, _, raw),) in enumerate(loader):
            tiles = raw.to(device.torch)
            generator = torch_generator(device.torch, spec.seed, "views", 0, step)
            size = protocol.image_size
            views = protocol.views
            view, _ = make_view(tiles, View(), size, views, archive, generator, generator)
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
    """Trains with the template, task after task of the same tiles; gives seconds per step."""

    def __init__(self, spec: RunSpec, store: TileStore, device: Device):
        self.objective = build_objective(spec, device.torch)
        stores = [store] * MANY
        self.template = SelfSupervisedTemplate(
            objective=self.objective,
            stores=stores,
            archives=[archive_of(store, (), spec.protocol)] * MANY,
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
        """Train the next task and return the mean seconds of its steps but the first.

        What strategies do when a task starts and ends is not in it.
        """
        self.ends = []
        self.template.train(next(self.experiences), eval_streams=[])
        return (self.ends[-1] - self.ends[0]) / (len(self.ends) - 1)

    def _on_step(self, *_: Any) -> None:
        synchronise(self.device)
        self.ends.append(time.perf_counter())


def synchronise(device: Device) -> None:
    if device.torch.type == "cuda":
        torch.cuda.synchronize(device.torch)


def pair(
    first: Callable[[], float], second: Callable[[], float], rounds: int
) -> tuple[list[float], list[float]]:
    """Return the seconds of two loops that take turns, after their first tasks.

    Strategies add nothing in the first task, and cost the same in all later ones but for `ewc`'s
    and others' growth; three past tasks stand for a stream.
    """
    for _ in range(PAST_TASKS):
        first()
        second()
    times = [(first(), second()) for _ in range(rounds)]
    return [a for a, _ in times], [b for _, b in times]


def measure(
    model: str, methods: Sequence[str], batch: int, steps: int, rounds: int, device_name: str
) -> dict[str, Any]:
    scenario_name, protocol_name = MODELS[model]
    device = open_device(device_name, "auto")

    def spec_of(method: str) -> RunSpec:
        assignments = [
            "training.epochs=1",
            "training.warmup_epochs=0",
            f"training.batch_size={batch}",
            f"buffer_size={batch}",
        ]
        if method == "ewc":  # the estimate at a task's end is not what is measured here
            assignments.append("strategies.ewc.images=1")
        scenario, recipe = load_scenario(scenario_name), load_method(method)
        return resolve_run(scenario, recipe, protocol_name, 0, tuple(assignments))

    ratios: dict[str, Any] = {}
    with TemporaryDirectory() as folder:
        store = synthetic_store(Path(folder), batch * steps, 256)
        base = spec_of("finetune")
        for method in methods:
            loop: Callable[[], float] = (
                plain_loop(base, store, device)
                if method == PLAIN
                else TemplateLoop(spec_of(method), store, device)
            )
            finetune, other = pair(TemplateLoop(base, store, device), loop, rounds)
            each = sorted(b / a for a, b in zip(finetune, other, strict=True))
            ratios[method] = {
                "over finetune": round(median(other) / median(finetune), 3),
                "by round": [round(value, 3) for value in each],
                "finetune images per second": round(batch / median(finetune), 2),
            }
            print(f"{method}: {ratios[method]}", file=sys.stderr, flush=True)
    return {
        "model": model,
        "batch": batch,
        "device": device.name,
        "precision": device.precision,
        "torch": torch.__version__,
        "rounds": rounds,
        "steps_per_round": steps - 1,
        "ratios": ratios,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=sorted(MODELS), default="vit-b")
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument(
        "--steps", type=int, default=4, help="steps of a round; the first is left out"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    if options.steps < 2:
        parser.error("--steps must be at least 2, since the first step of a round is left out")
    result = measure(
        options.model,
        options.methods,
        options.batch,
        options.steps,
        options.rounds,
        options.device,
    )
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
