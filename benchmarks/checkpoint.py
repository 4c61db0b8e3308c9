"""Cost of a checkpoint within a task: ViT-B/16 with CoSMAE in its third task."""

from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks.ratio import Ratio, seconds_of
from benchmarks.workload import TemplateLoop, short_run, synthetic_store
from rscl_bench.engine.checkpointing.files import read_checkpoint, write_checkpoint
from rscl_bench.engine.checkpointing.manager import INTERVAL
from rscl_bench.engine.device import open_device

BATCH, STEPS = 8, 3


def measure(device_name: str, rounds: int) -> list[Ratio]:
    """Return the times of writing and reading over a step and over the checkpoint interval."""
    device = open_device(device_name, "auto")
    write: list[float] = []
    read: list[float] = []
    with TemporaryDirectory() as name:
        store = synthetic_store(Path(name), BATCH * STEPS, 256)
        loop = TemplateLoop(short_run("vit-b", "cosmae", BATCH), store, device)
        loop()
        step = loop()
        folder = Path(name) / "checkpoints"
        on_step = loop.template.on_step

        def look(task: int, number: int, *rest: Any) -> None:
            for _ in range(rounds if number == 1 else 0):
                state = loop.template.snapshot()
                write.append(seconds_of(lambda state=state: write_checkpoint(folder, state)))  # type: ignore[misc]
                read.append(seconds_of(lambda: read_checkpoint(folder, print)))
            if on_step is not None:
                on_step(task, number, *rest)

        loop.template.on_step = look
        loop()
        size = max(path.stat().st_size for path in folder.iterdir())
    note = f"{size / 1e6:.0f} MB in {median(write):.2f} s, step of {BATCH} images {step:.2f} s"
    share = [seconds / INTERVAL for seconds in write]
    return [
        Ratio("checkpoint", "write over step", [seconds / step for seconds in write], note=note),
        Ratio("checkpoint", "read over step", [seconds / step for seconds in read]),
        Ratio("checkpoint", "write over interval", share, most=0.02),
    ]
