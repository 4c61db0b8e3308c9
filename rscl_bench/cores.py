"""The processor cores that this process may use, and the threads of numerical libraries."""

import os
from collections.abc import Iterator
from math import ceil
from pathlib import Path

#: What numerical libraries read their number of threads from, when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


_CONTROL_GROUP, _CONTROL_GROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Return the number of cores that this process may use.

    This is the number of cores in the process's affinity mask, or of the machine without one, and
    at most the quota of its control groups, which containers set.
    """
    if hasattr(os, "sched_getaffinity"):  # Linux
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *_quotas()]))


def _quotas() -> Iterator[int]:
    """Yield the cores that each control group (version 2) of this process grants, rounded up."""
    try:
        lines = _CONTROL_GROUP.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        return
    for group in (line.removeprefix("0::").strip("/") for line in lines if line.startswith("0::")):
        folder = _CONTROL_GROUPS / group
        for level in (folder, *folder.parents):
            try:
                quota, period = (level / "cpu.max").read_text(encoding="ascii").split()
                if quota != "max":
                    yield ceil(int(quota) / int(period))
            except (OSError, ValueError, ZeroDivisionError):  # such as the root, which has none
                continue


def let_threads_sleep() -> None:
    """Let OpenMP's threads sleep while they wait; by default they spin and hold their cores.

    Beside other programs, spinning threads make training several times slower. The environment is
    read when torch is first imported, so this must come before. A policy that the user chose stays.
    """
    if not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["OMP_WAIT_POLICY"] = "passive"


def set_threads(threads: int) -> None:
    """Set the number of threads of numerical libraries that are loaded later."""
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
