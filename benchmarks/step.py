"""Cost of a training step: trainer, methods, compilation and lightly's example.

Two loops take turns in one process on the same synthetic tiles. Strategies are measured with three
past tasks. The work of strategies at the start and end of a task is not part of a step.

    python -m benchmarks.step --methods ewc --batch 32               # some methods only
    python -m benchmarks.step --methods ewc --model cpu --batch 16   # model of scene4's protocol
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import torch

from benchmarks.peers import LightlyLoop
from benchmarks.ratio import Ratio, over, seconds_of, show
from benchmarks.workload import MODELS, TemplateLoop, plain_loop, short_run, synthetic_store
from rscl_bench.engine.device import open_device
from rscl_bench.spec import RunSpec

#: Target for a method's step over that of fine-tuning; None without a target.
METHODS: dict[str, float | None] = {
    "er": 1.02,
    "lump": 1.03,
    "ewc": 1.08,
    "si": None,
    "der": 1.45,
    "pfr": 1.45,
    "cassle-mae": None,
    "cosmae": 1.60,
}
PAST_TASKS = 3
STEPS = 4  # in a round; the first step is not counted


def measure(
    device_name: str,
    rounds: int,
    *,
    model: str = "vit-b",
    batch: int = 8,
    methods: Sequence[str] = (),
) -> list[Ratio]:
    """Return the ratios of steps.

    Args:
        device_name: See `open_device`.
        rounds: Rounds of each pair.
        model: Key of `MODELS`.
        batch: Images of a step.
        methods: Methods to measure. If empty, all methods of `METHODS`, the plain loop, lightly's
            example and compilation are measured. The cost of `ewc` depends on the number of
            parameters, so its share of a step is larger for small batches.
    """
    device = open_device(device_name, "auto")
    base = short_run(model, "finetune", batch)
    found: list[Ratio] = []

    def add(
        name: str,
        loop: Callable[[], float],
        past: int,
        *,
        least: float | None = None,
        most: float | None = None,
        ours_above: bool = False,
    ) -> None:
        ours, other = _pair(TemplateLoop(base, store, device), loop, rounds, past)
        values = over(ours, other) if ours_above else over(other, ours)
        note = f"{batch / median(ours):.3g} images/s by fine-tuning, batch {batch}, {model}"
        found.append(Ratio("step", name, values, least, most, note))

    with TemporaryDirectory() as folder:
        store = synthetic_store(Path(folder), batch * STEPS, 256)
        if not methods:
            plain = plain_loop(base, store, device)
            add("template over plain loop", plain, 1, most=1.05, ours_above=True)
            peer = _peer(base, device.torch, batch)
            add("lightly's example in fp32 over ours", peer, 1, least=1.6)
            compiled = short_run(model, "finetune", batch, "compile=true")
            loop = TemplateLoop(compiled, store, device)
            add("as it is over compiled", loop, 2, ours_above=True)
        for method in methods or METHODS:
            loop = TemplateLoop(_spec(model, method, batch), store, device)
            add(f"{method} over finetune", loop, PAST_TASKS, most=METHODS.get(method))
    return found


def _spec(model: str, method: str, batch: int) -> RunSpec:
    # One image suffices: the estimate at the end of a task is not part of a step.
    few = ["strategies.ewc.images=1"] if method == "ewc" else []
    return short_run(model, method, batch, *few)


def _peer(spec: RunSpec, device: torch.device, batch: int) -> Callable[[], float]:
    """Return a loop of lightly's example on ready views; the loop returns seconds per step."""
    size = spec.protocol.image_size
    views = torch.randn(batch, 3, size, size)
    loop = LightlyLoop(spec, iter(lambda: views, None), device)

    def steps() -> float:
        return seconds_of(lambda: loop(STEPS - 1)) / (STEPS - 1)

    return steps


def _pair(
    first: TemplateLoop, second: Callable[[], float], rounds: int, past: int
) -> tuple[list[float], list[float]]:
    """Return the seconds per step of two loops that take turns, after their first tasks."""
    for _ in range(past):
        first()
        second()
    times = [(first(), second()) for _ in range(rounds)]
    return [a for a, _ in times], [b for _, b in times]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m benchmarks.step")
    parser.add_argument("--methods", nargs="+", required=True)
    parser.add_argument("--model", choices=sorted(MODELS), default="vit-b")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    asked = parser.parse_args()
    sizes = {"model": asked.model, "batch": asked.batch, "methods": asked.methods}
    show(measure(asked.device, asked.rounds, **sizes))
