"""The Python interface: train methods, compare methods, and use the trained encoders.

The package ``rscl_bench`` exports all names of this module::

    import rscl_bench as rb

    record = rb.run("scene4", "cosmae", data_root="archives")
    encoder = rb.load_encoder(rb.run_folder(record) / "encoder.safetensors")
    features = encoder.features(images)

The command line parses its options, calls these functions and prints their results. A function
imports heavy libraries when it runs.
"""

from rscl_bench.api.archives import (
    cache_entries,
    clean_cache,
    fetch,
    open_tiles,
    render_sketches,
    write_dataset,
)
from rscl_bench.api.arguments import Settings
from rscl_bench.api.components import explain, list_components, load_method, load_scenario, new
from rscl_bench.api.encoders import embed, load_encoder, probe, pull, push
from rscl_bench.api.figures import export, plot
from rscl_bench.api.results import (
    foreign_files,
    leaderboard,
    power,
    publish,
    read_record,
    records,
    validate,
    write_leaderboards,
)
from rscl_bench.api.runs import extend, run, run_folder
from rscl_bench.api.submissions import add_submission, check_submission, pack_submission
from rscl_bench.api.sweeps import (
    GridError,
    study,
    sweep,
    tune,
    tuning_path,
    write_sweep_leaderboards,
)

__all__ = [
    "GridError",
    "Settings",
    "add_submission",
    "cache_entries",
    "check_submission",
    "clean_cache",
    "embed",
    "explain",
    "export",
    "extend",
    "fetch",
    "foreign_files",
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
    "write_sweep_leaderboards",
]
