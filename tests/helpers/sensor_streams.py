"""A scenario whose tasks and probes have 3, 1, 12 and 6 bands, as TOML and on disk."""

import copy
import json
from pathlib import Path
from typing import Any

from rscl_bench.explain import toml
from rscl_bench.randomness import numpy_generator
from rscl_bench.testing.four_sensors import ARCHIVES, dataset_of

BACKBONE = {"name": "vit", "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def declaration(mode: str = "grey3") -> dict[str, Any]:
    """Return the scenario of all four archives with one protocol ``tiny``."""
    parts: list[dict[str, Any]] = [
        {"name": a.folder, "dataset": dataset_of(a), "tile_size": 24} for a in ARCHIVES
    ]
    for part, archive in zip(parts, ARCHIVES, strict=True):
        part["bands"] = [band.name for band in archive.sensor.bands]
    return {
        "name": "four-sensors",
        "version": "1",
        "title": "Four made-up sensors",
        "default_protocol": "tiny",
        "tasks": [{**part, "split": "train"} for part in parts],
        "probes": [{**p, "task": p["name"], "parameters": {"k": 3}} for p in parts],
        "protocols": {
            "tiny": {
                "image_size": 16,
                "buffer_size": 12,
                "precision": "fp32",
                "bands": mode,
                "backbone": copy.deepcopy(BACKBONE),
                "training": {
                    "epochs": 1,
                    "batch_size": 8,
                    "learning_rate": 1e-3,
                    "warmup_epochs": 0.5,
                },
                "defaults": {"mae": {"decoder_dim": 24, "decoder_depth": 1, "decoder_heads": 2}},
            }
        },
    }


def write_scenario(folder: Path, raw: dict[str, Any]) -> Path:
    """Write a scenario as ``scenario.toml`` and return its path."""
    lines = []
    for key, value in json.loads(json.dumps(raw)).items():
        lines.append(f"{key} = {toml(value)}")
    path = folder / "scenario.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def write_archives(root: Path) -> Path:
    """Write the sketches of the four archives below a folder, and return the folder."""
    for archive in ARCHIVES:
        archive.write_sketch(root, numpy_generator(0, archive.folder))
    return root
