"""Run all measurements, or some: python -m benchmarks [--only step feed] [--out benchmarks.json].

Each measurement is a ratio of two pieces of work that take turns on this machine. Most ratios have
a target for two cores. No other work should run on the machine. NOTES.md has the predictions and
the results.
"""

import argparse
import json
import platform
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.ratio import Ratio, show
from rscl_bench.engine.device import open_device

PARTS = (
    "augmentation",
    "feed",
    "step",
    "packing",
    "probing",
    "checkpoint",
    "startup",
    "growth",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, help="Where to write the measurements as JSON.")
    options = parser.parse_args()
    console = Console()
    ratios: list[Ratio] = []
    for name in options.only:
        console.print(f"measuring {name} …")
        part = import_module(f"benchmarks.{name}").measure(options.device, options.rounds)
        show(part)
        ratios += part
        if options.out:  # after every part, because all parts together take long
            _write(options.out, options.device, ratios)
    missed = [ratio.name for ratio in ratios if ratio.met is False]
    missing = f"{len(missed)} targets missed: {', '.join(missed)}"
    console.print(missing if missed else "all targets met")


def _write(path: Path, device_name: str, ratios: list[Ratio]) -> None:
    device = open_device(device_name, "auto")
    result = {
        "device": device.name,
        "precision": device.precision,
        "torch": torch.__version__,
        "platform": f"{platform.system()} {platform.machine()}",
        "ratios": [ratio.as_json() for ratio in ratios],
    }
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
