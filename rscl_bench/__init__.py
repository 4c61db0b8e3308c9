"""rscl-bench: continual self-supervised learning in remote sensing, measured."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rscl_bench.api import (
        GridError,
        add_submission,
        cache_entries,
        check_submission,
        clean_cache,
        embed,
        export,
        extend,
        fetch,
        leaderboard,
        list_components,
        load_encoder,
        load_method,
        load_scenario,
        new,
        open_tiles,
        pack_submission,
        plot,
        power,
        probe,
        publish,
        pull,
        push,
        read_record,
        records,
        render_sketches,
        run,
        run_folder,
        study,
        sweep,
        tune,
        tuning_path,
        validate,
        write_dataset,
        write_leaderboards,
    )

__version__ = "0.4.0"

__all__ = [
    "GridError",
    "__version__",
    "add_submission",
    "cache_entries",
    "check_submission",
    "clean_cache",
    "embed",
    "export",
    "extend",
    "fetch",
    "leaderboard",
    "list_components",
    "load_encoder",
    "load_method",
    "load_scenario",
    "new",
    "open_tiles",
    "pack_submission",
    "plot",
    "power",
    "probe",
    "publish",
    "pull",
    "push",
    "read_record",
    "records",
    "render_sketches",
    "run",
    "run_folder",
    "study",
    "sweep",
    "tune",
    "tuning_path",
    "validate",
    "write_dataset",
    "write_leaderboards",
]


def __getattr__(name: str) -> Any:
    """Import the Python interface when one of its names is first used."""
    if name in __all__:
        return getattr(import_module("rscl_bench.api"), name)
    raise AttributeError(f"module 'rscl_bench' has no attribute '{name}'")
