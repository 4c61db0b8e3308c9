"""The number of processor cores that this process may use."""

import os


def usable_cores() -> int:
    """Return the number of cores in this process's affinity mask, or of the machine without one."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
