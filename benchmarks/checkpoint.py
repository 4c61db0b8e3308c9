"""What a checkpoint within a task costs, of ViT-B/16: writing and reading it, over a step.

python -m benchmarks.checkpoint                  # cosmae in its third task
python -m benchmarks.checkpoint --method ewc
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.step import TemplateLoop, synthetic_store
from rscl_bench.declarations import load_method, load_scenario
from rscl_bench.engine.checkpoint import read_checkpoint, write_checkpoint
from rscl_bench.engine.device import open_device
from rscl_bench.engine.resume import INTERVAL
from rscl_bench.resolve import resolve_run

BATCH, STEPS, ROUNDS = 8, 3, 5


def seconds_of(work: Any) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--method", default="cosmae")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--folder", type=Path, help="Where to write; by default a temporary one.")
    options = parser.parse_args()
    device = open_device(options.device, "auto")
    sizes = ("epochs=1", "warmup_epochs=0", f"batch_size={BATCH}")
    assignments = (*(f"training.{size}" for size in sizes), f"buffer_size={BATCH}")
    scenario, recipe = load_scenario("rs4"), load_method(options.method)
    spec = resolve_run(scenario, recipe, "paper", 0, assignments)
    write: list[float] = []
    read: list[float] = []
    with TemporaryDirectory(dir=options.folder) as name:
        loop = TemplateLoop(spec, synthetic_store(Path(name), BATCH * STEPS, 256), device)
        loop()
        step = loop()
        folder = Path(name) / "checkpoints"

        def look(_task: int, number: int, *_rest: Any) -> None:
            for _round in range(ROUNDS if number == 1 else 0):
                write.append(seconds_of(lambda: write_checkpoint(folder, loop.template.snapshot())))
                read.append(seconds_of(lambda: read_checkpoint(folder, print)))
            loop.ends.append(time.perf_counter())

        loop.template.on_step = look
        loop()
        size = max(path.stat().st_size for path in folder.iterdir())
    result = {
        "method": options.method,
        "device": device.name,
        "megabytes": round(size / 1e6),
        "write over step": round(median(write) / step, 2),
        "read over step": round(median(read) / step, 2),
        "write, seconds": [round(value, 2) for value in sorted(write)],
        "share of time at the interval of a run": round(median(write) / INTERVAL, 5),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
