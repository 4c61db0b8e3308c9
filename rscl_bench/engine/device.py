"""Device and precision of a run, the speed of matrix products, and peak memory."""

import logging
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.environments.lightning import LightningEnvironment

from rscl_bench.cores import usable_cores
from rscl_bench.errors import SpecError

Precision = Literal["bf16", "fp32"]
_FABRIC_PRECISION: dict[Precision, Literal["bf16-mixed", "32-true"]] = {
    "bf16": "bf16-mixed",
    "fp32": "32-true",
}
_PRODUCTS = 5  # the fastest product counts


@dataclass(frozen=True)
class Device:
    """A device, and the precision of forward passes on it.

    Attributes:
        torch: The device.
        name: Full name, such as the model of the CPU or GPU; times compare within one name only.
        precision: Number format of forward passes.
        autocast: Makes the context of a forward pass.
    """

    torch: torch.device
    name: str
    precision: Precision
    autocast: Callable[[], AbstractContextManager[Any]]


def open_device(name: str, precision: Literal["auto", "bf16", "fp32"]) -> Device:
    """Open a device.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.
        precision: ``auto`` is bf16 where the device computes in bf16 natively, else fp32.

    Raises:
        SpecError: If there is no such device.
    """
    accelerator, _, index = name.partition(":")
    if not re.fullmatch(r"auto|cpu|cuda(:[0-9]{1,4})?", name):
        raise SpecError(f"Unknown device '{name}'; use auto, cpu, cuda or cuda:N.")
    available = torch.cuda.device_count()
    if accelerator == "cuda" and int(index or 0) >= available:
        raise SpecError(f"There is no device '{name}' ({available} CUDA devices); use cpu.")
    if accelerator == "auto":
        accelerator = "cuda" if available else "cpu"
    resolved: Precision
    if precision == "auto":
        resolved = "bf16" if _native_bf16(accelerator) else "fp32"
    else:
        resolved = precision
    # Lightning sets its loggers to INFO and prints one line, which repeats the record.
    for logger in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=accelerator,
        devices=[int(index or 0)] if accelerator == "cuda" else 1,
        precision=_FABRIC_PRECISION[resolved],
        # A run has one process. Lightning's search for a cluster would warn where `srun` exists,
        # and refuse a SLURM job with several tasks.
        plugins=[LightningEnvironment()],
    )
    return Device(fabric.device, _device_name(fabric.device), resolved, fabric.autocast)


@contextmanager
def cpu_threads(threads: int | None) -> Iterator[None]:
    """Let torch use a number of CPU threads within a block.

    Args:
        threads: Number of threads; None for the present number. Without OMP_NUM_THREADS, this is at
            most the number of cores that this process may use.
    """
    before = torch.get_num_threads()
    bound = before if "OMP_NUM_THREADS" in os.environ else usable_cores()
    torch.set_num_threads(threads or min(before, bound))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def matrix_flops(device: Device) -> float:
    """Return the operations per second of the fastest of several large matrix products.

    The rate is measured, because data sheets of GPUs list rates that no program reaches, and data
    sheets of CPUs list none. The measurement uses the precision and the threads of the run. Other
    programs on the machine lower the rate.

    Args:
        device: The device to measure.
    """
    cuda = device.torch.type == "cuda"
    side = 8192 if cuda else 1024
    dtype = torch.bfloat16 if device.precision == "bf16" else torch.float32
    # Random values, because a GPU is faster where few bits change. The generator is a local one.
    generator = torch.Generator(device.torch).manual_seed(0)
    matrix = torch.rand(side, side, generator=generator, device=device.torch).to(dtype)
    seconds = []
    for _ in range(_PRODUCTS):
        started = time.perf_counter()
        torch.mm(matrix, matrix)
        if cuda:
            torch.cuda.synchronize(device.torch)
        seconds.append(time.perf_counter() - started)
    return 2 * side**3 / min(seconds)


def peak_memory(device: torch.device) -> int | None:
    """Return the peak of memory in bytes: allocated on a GPU, or resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resident_peak()


def resident_peak() -> int | None:
    """Return the peak of this process's resident memory in bytes; None without Linux's ``/proc``.

    ``getrusage`` would not do: its peak is inherited from the parent process.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(match[1]) if match else None


def _native_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    return f"{processor_name()} ({threads} thread{'' if threads == 1 else 's'})"


def processor_name() -> str:
    """Return the model name of the processor, or its architecture where no model is known."""
    return _linux_processor() or _mac_processor() or platform.processor() or platform.machine()


def _linux_processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"^model name\s*:(.*)$", text, re.MULTILINE)
    return found[1].strip() if found else ""


def _mac_processor() -> str:
    if sys.platform != "darwin":
        return ""
    command = ("/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()
