"""The processes that decode images."""

import subprocess
import sys

from rscl_bench.interruption import SIGNALS


def test_a_forked_worker_leaves_signals_to_its_parent() -> None:
    """The parent ends workers by SIGTERM; its own handlers would print a traceback in a worker."""
    script = (
        "import signal\n"
        "from rscl_bench.interruption import SIGNALS, raising\n"
        "from rscl_bench.tiles.workers import _start_worker\n"
        "with raising():\n"
        "    _start_worker(None, 0)\n"
        "    print([signal.getsignal(number).name for number in SIGNALS])\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    expected = ["SIG_DFL" if n.name == "SIGTERM" else "SIG_IGN" for n in SIGNALS]
    assert done.stdout == f"{expected}\n", done.stderr
