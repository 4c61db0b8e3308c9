"""Prints a Markdown table of all objectives and the cost of one step; see docs/objectives.md.

The model is a ViT-B/16 at 224 px with three bands and the heads of each paper:

    python -m benchmarks.objectives
"""

import torch

from rscl_bench import registry
from rscl_bench.declarations import load_scenario
from rscl_bench.engine.build import build_objective
from rscl_bench.engine.flops import count_flops
from rscl_bench.objectives.base import Objective
from rscl_bench.resolve import resolve_run
from rscl_bench.spec import Component, Method

HEADS = (
    "objective",
    "family",
    "what is predicted",
    "negatives",
    "momentum",
    "small crops",
    "parameters, M",
    "trained, M",
    "GFLOP with gradient",
    "GFLOP without gradient",
)


def row(name: str) -> list[str]:
    """Return the table's row for an objective."""
    entry = registry.entries("objectives")[name]
    method = Method(name=name, title=name, objective=Component(name=name))
    spec = resolve_run(load_scenario("rs4"), method, "paper")
    objective = build_objective(spec, torch.device("cpu"))
    flops = count_flops(objective, spec.protocol.image_size)
    return [
        f"`{name}`",
        entry.family,
        entry.summary,
        _mark(objective.negatives),
        _mark(objective.momentum),
        _mark(any(view.size < 1 for view in objective.views)),
        _millions(objective, trained=False),
        _millions(objective, trained=True),
        f"{flops.with_gradient / 1e9:.1f}",
        f"{flops.without_gradient / 1e9:.1f}",
    ]


def _mark(value: bool) -> str:
    return "yes" if value else ""


def _millions(objective: Objective, trained: bool) -> str:
    counted = (p for p in objective.parameters() if p.requires_grad or not trained)
    return f"{sum(p.numel() for p in counted) / 1e6:.1f}"


def main() -> None:
    print("| " + " | ".join(HEADS) + " |")
    print("|" + " --- |" * 6 + " ---: |" * 4)
    entries = registry.entries("objectives")
    for name in sorted(entries, key=lambda name: (entries[name].family, name)):
        print("| " + " | ".join(row(name)) + " |", flush=True)


if __name__ == "__main__":
    main()
