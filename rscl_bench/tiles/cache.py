"""The folder that keeps sketch archives and tile stores between runs."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """Return the folder in ``RSCL_CACHE``; if that is not set, the user's cache folder."""
    chosen = os.environ.get("RSCL_CACHE")
    return Path(chosen) if chosen else user_cache_path("rscl-bench", appauthor=False)
