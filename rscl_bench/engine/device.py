"""Device and precision of a run, through Lightning Fabric."""

import logging
import platform
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
