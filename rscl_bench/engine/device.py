"""Device and precision of a run, and what the device gives: matrix products and memory."""

import logging
import platform
import re
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric import Fabric

from rscl_bench.errors import SpecError

Precision = Literal["bf16", "fp32"]
_FABRIC_PRECISION: dict[Precision, Literal["bf16-mixed", "32-true"]] = {
    "bf16": "bf16-mixed",
    "fp32": "32-true",
}
_PRODUCTS = 5  # the fastest product counts


@dataclass(frozen=True)
class Device:
    """Where a run computes.

    Attributes:
        torch: The device.
        name: Its full name, such as the CPU's or GPU's model; times compare within it only.
        precision: What forward passes compute in.
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
        precision: ``auto`` takes bf16 where the device computes in it natively.

    Raises:
        SpecError: If there is no such device.
    """
    accelerator, _, index = name.partition(":")
    if accelerator not in ("auto", "cpu", "cuda") or (index and not index.isdecimal()):
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
    # Lightning raises its loggers to INFO; the one line it then prints is in our record anyway.
    for logger in ("lightning.fabric", "lightning.pytorch"):
        logging.getLogger(logger).setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator=accelerator,
        devices=[int(index or 0)] if accelerator == "cuda" else 1,
        precision=_FABRIC_PRECISION[resolved],
    )
    return Device(fabric.device, _device_name(fabric.device), resolved, fabric.autocast)


def matrix_flops(device: Device) -> float:
    """Return the operations per second of the fastest of some large matrix products.

    Data sheets of GPUs do not say what a device reaches, and say nothing of CPUs; published tables
    of theirs mix rates of tensor cores with others. So the rate is measured, in the precision and
    with the threads of the run; what else runs beside it lowers it.

    Args:
        device: Where to compute.
    """
    cuda = device.torch.type == "cuda"
    side = 8192 if cuda else 1024
    dtype = torch.bfloat16 if device.precision == "bf16" else torch.float32
    # Not all ones: a GPU runs faster where few bits change. Torch's own generator stays as it is.
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
    """Return the most bytes that this process had resident; None where Linux does not say so.

    Not by ``getrusage``, whose figure begins with that of the process which started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        return None
    found = re.search(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
    return 1024 * int(found[1]) if found else None


def _native_bf16(accelerator: str) -> bool:
    if accelerator == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else ""
    threads = torch.get_num_threads()
    name = model or platform.processor() or platform.machine()
    return f"{name} ({threads} thread{'' if threads == 1 else 's'})"
