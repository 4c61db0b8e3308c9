"""A stream and a protocol small enough for tests: no archive, about a second for three tasks."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.declarations import load_method
from rscl_bench.encoder_bands import channels_of, encoder_bands
from rscl_bench.engine.build import build_objective, build_strategies
from rscl_bench.engine.probing import pixel_scaling
from rscl_bench.engine.stream import make_stream
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.objectives.base import Objective
from rscl_bench.randomness import numpy_generator
from rscl_bench.resolve import parse_assignments, resolve_run
from rscl_bench.spec import (
    BandMode,
    Component,
    Method,
    Probe,
    Protocol,
    RunSpec,
    Scenario,
    Task,
    Training,
)
from rscl_bench.testing.four_sensors import ARCHIVES, dataset_of
from rscl_bench.tiles.store import TileStore

State = dict[str, Tensor]

TINY_BACKBONE: dict[str, Any] = {
    "name": "vit",
    "patch_size": 8,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 2,
}


def tiny_stores(
    tasks: int = 3,
    tiles: int = 16,
    size: int = 20,
    bands: int | Sequence[int] = 3,
    dtype: str = "uint8",
) -> list[TileStore]:
    """Return one store of random tiles per task, in memory; every task has its own brightness.

    Args:
        tasks: How many stores.
        tiles: Tiles of each.
        size: Side of a tile in pixels.
        bands: Bands of a tile, of all tasks or of each.
        dtype: ``uint8`` or ``uint16``.
    """
    stores = []
    for task in range(tasks):
        rng = numpy_generator(0, "tiny tiles", task)
        brightest = 100 + 50 * (task % 4)
        own = bands if isinstance(bands, int) else bands[task]
        pixels = rng.integers(0, brightest, (tiles, size, size, own)).astype(dtype)
        stores.append(store_of(pixels, f"tiny{task}"))
    return stores


def store_of(pixels: NDArray[Any], name: str) -> TileStore:
    """Return a store, in memory, of tiles ``[N, H, W, C]`` without labels."""
    return TileStore(
        tiles=pixels,
        shares=None,
        classes=(),
        mean=pixels.mean(axis=(0, 1, 2), dtype=np.float64),
        std=pixels.std(axis=(0, 1, 2), dtype=np.float64),
        scale=255.0,
        blank=0,
        digest=name,
        source_digest=name,
        path=Path(name),
    )


def tiny_spec(
    method: str | Method = "finetune",
    *,
    seed: int = 0,
    tasks: int = 3,
    bands: int = 3,
    image_size: int = 16,
    backbone: Mapping[str, Any] | None = None,
    defaults: Mapping[str, dict[str, Any]] | None = None,
    assignments: Sequence[str] = (),
    mode: BandMode | None = None,
) -> RunSpec:
    """Return a run of a few steps per task that fits `tiny_stores`.

    Args:
        method: The recipe, or its name.
        seed: The run's seed.
        tasks: Number of tasks.
        bands: Number of bands.
        image_size: Side of the encoder's input in pixels.
        backbone: The backbone and its parameters, in place of a tiny ViT.
        defaults: The protocol's defaults by component, in place of a tiny MAE decoder.
        assignments: As ``--set`` takes them.
        mode: How bands reach the encoder. With a mode, the tasks have the sensors of
            `rscl_bench.testing.four_sensors`, in their order and again from the first.
    """
    names = tuple(f"band{number}" for number in range(bands))
    sources: list[dict[str, Any]] = [{"dataset": "tiny", "bands": names}] * tasks
    if mode is not None:
        archives = [ARCHIVES[number % len(ARCHIVES)] for number in range(tasks)]
        sources = [{"dataset": dataset_of(a), "bands": a.band_names()} for a in archives]
    sources = [{**source, "tile_size": image_size} for source in sources]
    protocol = Protocol(
        image_size=image_size,
        buffer_size=12,
        precision="fp32",
        bands=mode,
        backbone=dict(TINY_BACKBONE if backbone is None else backbone),
        training=Training(epochs=2, batch_size=8, learning_rate=1e-3, warmup_epochs=0.5),
        defaults=dict(
            {"mae": {"decoder_dim": 24, "decoder_depth": 1, "decoder_heads": 2}}
            if defaults is None
            else defaults
        ),
    )
    scenario = Scenario(
        name="tiny",
        version="1",
        title="Random tiles",
        tasks=tuple(Task(name=f"task{n}", split="train", **s) for n, s in enumerate(sources)),
        probes=(Probe(name="probe", **sources[0]),),
        default_protocol="tiny",
        protocols={"tiny": protocol},
    )
    recipe = load_method(method) if isinstance(method, str) else method
    return resolve_run(scenario, recipe, seed=seed, overrides=parse_assignments(assignments))


def start(
    spec: RunSpec,
    stores: Sequence[TileStore] | None = None,
    plugins: Sequence[BaseSGDPlugin] = (),
    objective: Objective | None = None,
) -> SelfSupervisedTrainer:
    """Return a template that is ready to train a run on the CPU.

    Args:
        spec: The run.
        stores: Tiles of every task; `tiny_stores` if None.
        plugins: Avalanche plugins, called after the strategies.
        objective: Trained in place of a newly built one.
    """
    device = torch.device("cpu")
    bands = encoder_bands(spec.scenario, spec.protocol)
    tasks = spec.scenario.tasks
    own = [len(task.bands) for task in tasks]
    used = tiny_stores(len(tasks), bands=own) if stores is None else stores
    model = build_objective(spec, device) if objective is None else objective
    return SelfSupervisedTrainer(
        objective=model,
        stores=used,
        scalings=[
            pixel_scaling(store, task.bands, spec.protocol, channels_of(task, bands))
            for store, task in zip(used, tasks, strict=True)
        ],
        strategies=build_strategies(spec, model, device),
        protocol=spec.trained_protocol(),
        seed=spec.seed,
        device=device,
        plugins=plugins,
    )


def train(template: SelfSupervisedTrainer, tasks: Sequence[int] | None = None) -> list[State]:
    """Train on some tasks of the stream, in order.

    Args:
        template: From `start`.
        tasks: Numbers of the tasks, from 0; all if None.

    Returns:
        A copy of the objective's state after each task.
    """
    experiences = make_stream(template.stores).streams["train"]
    states = []
    for number in range(len(template.stores)) if tasks is None else tasks:
        template.train(experiences[number], eval_streams=[])
        states.append(state_of(template.model))
    return states


def state_of(module: torch.nn.Module) -> State:
    """Return a copy of a module's parameters and buffers."""
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def differing(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> list[str]:
    """Return the names of tensors that are not equal to the last bit, or only in one of the two."""
    return sorted(
        name
        for name in first.keys() | second.keys()
        if name not in first or name not in second or not torch.equal(first[name], second[name])
    )


def recipe(objective: Mapping[str, Any], strategies: Sequence[Mapping[str, Any]] = ()) -> Method:
    """Return a method made of components: a ``name`` and parameters each."""
    return Method(
        name="contract",
        title="Contract",
        objective=Component.model_validate(dict(objective)),
        strategies=tuple(Component.model_validate(dict(one)) for one in strategies),
    )
