"""What a study has for one of its stages."""

from pathlib import Path
from typing import NamedTuple

from rscl_bench.studies import Stage
from rscl_bench.sweeps.pool import Run


class StageResult(NamedTuple):
    """What a study has for one stage.

    Attributes:
        stage: The stage.
        runs: The runs, in their order; those that are not done have no record.
        tunings: Files of the choices of a grid, one per method; empty for a sweep, and for a grid
            with runs to do.
    """

    stage: Stage
    runs: list[Run]
    tunings: list[Path]
