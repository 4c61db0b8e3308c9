"""The folder that keeps sketch archives and tile stores between runs."""

import os
from pathlib import Path

from platformdirs import user_cache_path

from rscl_bench.user_paths import user_path


def cache_folder() -> Path:
    """Return the folder in ``RSCL_CACHE``; if that is not set, the user's cache folder."""
    chosen = os.environ.get("RSCL_CACHE")
    if chosen:
        return user_path(chosen, "RSCL_CACHE")
    return user_cache_path("rscl-bench", appauthor=False)
