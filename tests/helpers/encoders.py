"""Descriptions and files of made-up encoders."""

from pathlib import Path
from typing import Any

from rscl_bench.models.build import build_encoder
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.encoder_file import (
    EncoderArchive,
    EncoderDescription,
    EncoderInput,
    EncoderTask,
    write_encoder,
)
from rscl_bench.randomness import seeded
from rscl_bench.sensors import Band
from rscl_bench.spec import Component
from rscl_bench.testing.tiny import TINY_BACKBONE

BANDS = (Band("red", 665.0, 30.0), Band("nir", 842.0))
ARCHIVE = EncoderArchive(
    dataset="potsdam",
    split="train",
    title="Potsdam",
    source="a page",
    licence="CC BY 4.0",
    tile_size=32,
    cut="grid",
)


def given(task: str, level: float, **changes: Any) -> EncoderInput:
    """Return the input of a task with the bands red and nir."""
    fields: dict[str, Any] = {
        "task": task,
        "bands": ("red", "nir"),
        "unit": "reflectance",
        "scale": 1e4,
        "mean": (level, 2),
        "std": (3, 4),
        "dtype": "uint16",
        "spectrum": BANDS,
        "archive": ARCHIVE,
    }
    return EncoderInput(**{**fields, **changes})


def three_bands(task: str) -> EncoderInput:
    """Return the input of a task with 8-bit images in red, green and blue."""
    bands = (Band("red", 665.0), Band("green", 560.0), Band("blue", 480.0))
    return given(
        task,
        100.0,
        bands=("red", "green", "blue"),
        spectrum=bands,
        mean=(100.0, 110.0, 90.0),
        std=(40.0, 50.0, 60.0),
        scale=255.0,
        dtype="uint8",
        unit="8-bit digital number",
    )


def described(*inputs: EncoderInput, **changes: Any) -> EncoderDescription:
    """Return the description of an encoder with the given inputs, by default of two tasks."""
    chosen = inputs or (given("first", 0.1), given("second", 1))
    fields: dict[str, Any] = {
        "rscl_bench": "1.0",
        "run": "0123456789abcdef",
        "scenario": "two",
        "scenario_version": "1",
        "edition": "real",
        "protocol": "tiny",
        "method": "finetune",
        "seed": 3,
        "backbone": TINY_BACKBONE,
        "pooling": "token" if changes.get("probed_feature") == "cls" else "avg",
        "task": EncoderTask(name=chosen[-1].task, number=len(chosen), of=len(chosen)),
        "image_size": 16,
        "bands": chosen[-1].bands,
        "inputs": chosen,
    }
    return EncoderDescription(**{**fields, **changes})


def write_made_up(path: Path, description: EncoderDescription, seed: int = 0) -> Encoder:
    """Write a file with an encoder of random weights, and return the encoder."""
    with seeded(seed, "made-up encoder"):
        encoder = build_encoder(
            Component.model_validate(description.backbone.model_dump()),
            description.image_size,
            len(description.bands),
            description.probed_feature,
        )
    write_encoder(path, encoder, description)
    return encoder.eval()
