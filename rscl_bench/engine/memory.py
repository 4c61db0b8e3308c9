"""How much memory this process took."""

import re
from pathlib import Path


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
