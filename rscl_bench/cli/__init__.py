"""The command line: parses options, calls `rscl_bench.api` and prints the results.

Each module holds one group of commands. The order of the imports is that of ``--help``.
"""

# isort: off
from rscl_bench.cli.application import app, main
from rscl_bench.cli import run, sweep, encoders, components, data, leaderboard, submit, figures

# isort: on

__all__ = [
    "app",
    "components",
    "data",
    "encoders",
    "figures",
    "leaderboard",
    "main",
    "run",
    "submit",
    "sweep",
]
