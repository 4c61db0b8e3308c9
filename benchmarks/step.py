"""What a training step costs: the template against a plain loop, CoSMAE against fine-tuning.

Everything runs in turn in one process, on the same synthetic tiles, so that a drift of the
machine's speed meets all of them; what is printed are ratios of medians.

    python -m benchmarks.step                 # ViT-B/16 at 224 px, the paper's model
    python -m benchmarks.step --model cpu     # the model of scene4's cpu protocol
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from rscl_bench.data.augment import draw_crops, resized_crops
from rscl_bench.data.stream import TileLoader, make_stream
from rscl_bench.data.tile_store import TileStore
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine.device import Device, open_device
from rscl_bench.engine.probing import normalisation_of
from rscl_bench.engine.run import build_objective, build_strategies
from rscl_bench.engine.schedule import learning_rate
from rscl_bench.engine.template import SelfSupervisedTemplate, weight_decay_groups
from rscl_bench.randomness import torch_generator
from rscl_bench.resolve import resolve_run
from rscl_bench.spec import RunSpec

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
    """Return a function that trains one epoch without Avalanche and returns its seconds."""
    protocol = spec.protocol
    training = protocol.training
    objective = build_objective(spec, device.torch)
    normalisation = normalisation_of(store, protocol).to(device.torch)
    optimiser = torch.optim.AdamW(
        weight_decay_groups([objective], training.weight_decay), betas=training.betas, fused=True
    )

    def epoch() -> float:
        loader = TileLoader(store, training.batch_size, spec.seed, 0)
        started = time.perf_counter()
        for step, raw in enumerate(loader):
            tiles = raw.to(device.torch)
            count, height, width, _ = tiles.shape
            generator = torch_generator(device.torch, spec.seed, "views", 0, step)
            crops = draw_crops(count, height, width, protocol.views, generator)
            views = [resized_crops(tiles, crops, protocol.image_size, normalisation)]
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, len(loader), 0, training.learning_rate)
            optimiser.zero_grad()
            with device.autocast():
                generator = torch_generator(device.torch, spec.seed, "objective", 0, step)
                loss = objective(views, generator).loss
            loss.backward()
            optimiser.step()
        synchronise(device)
        return time.perf_counter() - started

    return epoch


def template_loop(spec: RunSpec, store: TileStore, device: Device) -> Callable[[], float]:
    """Return a function that trains one epoch of the next task and returns its seconds."""
    objective = build_objective(spec, device.torch)
    many = 1000  # more tasks than rounds; all of them the same tiles
    template = SelfSupervisedTemplate(
        objective=objective,
        stores=[store] * many,
        normalisations=[normalisation_of(store, spec.protocol)] * many,
        strategies=build_strategies(spec, objective, device.torch),
        protocol=spec.protocol,
        seed=spec.seed,
        device=device.torch,
        autocast=device.autocast,
    )
    experiences = iter(make_stream([store] * many).streams["train"])

    def epoch() -> float:
        template.train(next(experiences), eval_streams=[])
        return template.train_seconds[-1]

    return epoch


def synchronise(device: Device) -> None:
    if device.torch.type == "cuda":
        torch.cuda.synchronize(device.torch)


def measure(model: str, batch: int, steps: int, rounds: int, device_name: str) -> dict[str, Any]:
    scenario_name, protocol_name = MODELS[model]
    assignments = (
        "training.epochs=1",
        "training.warmup_epochs=0",
        f"training.batch_size={batch}",
        f"buffer_size={batch}",
    )
    specs = {
        name: resolve_run(
            load_scenario(scenario_name), load_method(name), protocol_name, 0, assignments
        )
        for name in ("finetune", "cosmae")
    }
    device = open_device(device_name, "auto")
    with TemporaryDirectory() as folder:
        store = synthetic_store(Path(folder), batch * steps, 256)
        loops = {
            "plain loop": plain_loop(specs["finetune"], store, device),
            "finetune": template_loop(specs["finetune"], store, device),
            "cosmae": template_loop(specs["cosmae"], store, device),
        }
        # The first epoch warms up, and is the first task, in which CoSMAE is plain.
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for name, epoch in [(n, e) for _ in range(rounds + 1) for n, e in loops.items()]:
            seconds[name].append(epoch() / steps)
    medians = {name: median(values[1:]) for name, values in seconds.items()}
    return {
        "model": model,
        "batch": batch,
        "device": device.name,
        "precision": device.precision,
        "torch": torch.__version__,
        "rounds": rounds,
        "steps_per_round": steps,
        "milliseconds_per_step": {
            n: [round(1e3 * v, 2) for v in s[1:]] for n, s in seconds.items()
        },
        "images_per_second": {name: round(batch / value, 2) for name, value in medians.items()},
        "template over plain loop": round(medians["finetune"] / medians["plain loop"], 4),
        "cosmae over finetune": round(medians["cosmae"] / medians["finetune"], 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=sorted(MODELS), default="vit-b")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=2, help="steps of a round")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    result = measure(options.model, options.batch, options.steps, options.rounds, options.device)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
