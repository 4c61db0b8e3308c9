"""Where sketch archives and tile stores are kept between runs."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """Return ``RSCL_CACHE`` if it is set, else the user's cache folder of this package."""
    chosen = os.environ.get("RSCL_CACHE")
    return Path(chosen) if chosen else user_cache_path("rscl-bench", appauthor=False)
