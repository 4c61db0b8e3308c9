"""The processor cores that this process may use, and the threads of numerical libraries."""

import os

#: What numerical libraries read their number of threads from, when they are loaded.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def usable_cores() -> int:
    """Return the number of cores in this process's affinity mask, or of the machine without one."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


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
