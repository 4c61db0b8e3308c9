"""Growth with the stream: memory with the number of tiles, step time with the number of tasks."""

import re
import subprocess
import sys
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from benchmarks.ratio import Ratio
from benchmarks.workload import TemplateLoop, short_run, synthetic_store
from rscl_bench.engine.device import open_device

#: Methods that keep state about past tasks, with their settings.
METHODS = {
    "er": (),
    "ewc": ("strategies.ewc.images=1",),
    "ewc online": ("strategies.ewc.images=1", "strategies.ewc.mode=online"),
    "si": (),
    "der": (),
    "lump": (),
    "pfr": (),
    "cassle-mae": (),
    "cosmae": (),
}
FEW, MANY = 2, 20  # past tasks
SMALL, LARGE = 10_000, 1_000_000  # tiles
BATCH, STEPS = 16, 13
TASKS = 5  # in a round


def measure(device_name: str, rounds: int) -> list[Ratio]:
    """Return memory with 10⁶ over 10⁴ tiles, and a step after 20 tasks over a step after 2."""
    device = open_device(device_name, "auto")
    memory = [_memory(LARGE) / _memory(SMALL)]
    found = [Ratio("growth", "memory, 10⁶ over 10⁴ tiles", memory, most=1.1)]
    with TemporaryDirectory() as folder:
        store = synthetic_store(Path(folder), BATCH * STEPS, 100)
        for name, more in METHODS.items():
            spec = short_run("cpu", name.split()[0], BATCH, *more)
            late = TemplateLoop(spec, store, device)
            for _ in range(MANY):
                late()
            values = []
            for _ in range(rounds):
                early = TemplateLoop(spec, store, device)
                for _ in range(FEW):
                    early()
                # The loops take turns, because the machine's speed drifts more than the growth.
                values.append(median(late() / early() for _ in range(TASKS)))
            found.append(Ratio("growth", f"{name}: a step after 20 over after 2", values, most=1.1))
    return found


def _memory(tiles: int) -> int:
    """Return the memory in kB of a process that trained two tasks of ``tiles`` tiles each.

    The figure is the anonymous memory of the process (RssAnon). It excludes pages of the mapped
    file, which the kernel can reclaim at any time.
    """
    command = [sys.executable, "-m", "benchmarks.growth", str(tiles)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _train(tiles: int) -> int:
    batch = SMALL // 4
    spec = short_run(
        "cpu",
        "er",
        batch,
        "image_size=8",
        "backbone.embed_dim=32",
        "backbone.depth=1",
        "backbone.num_heads=2",
        "backbone.patch_size=4",
        "objective.decoder_dim=32",
        "objective.decoder_heads=2",
    )
    with TemporaryDirectory() as folder:
        loop = TemplateLoop(
            spec, synthetic_store(Path(folder), tiles, 8), open_device("cpu", "auto")
        )
        loop()
        loop()
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    found = re.search(r"RssAnon:\s+(\d+) kB", status)
    assert found, "The measurement reads /proc/self/status, so it needs Linux."
    return int(found[1])


if __name__ == "__main__":
    print(_train(int(sys.argv[1])))
