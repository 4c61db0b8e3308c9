"""Public contracts: what every component of the registry keeps, also another package's.

Each check is a plain function that raises ``AssertionError`` with what went wrong::

    from rscl_bench.testing import check_objective

    def test_contract() -> None:
        check_objective("my-objective")
"""

from rscl_bench.testing.adapters import check_adapter
from rscl_bench.testing.changing_bands import check_changing_bands
from rscl_bench.testing.objectives import check_objective
from rscl_bench.testing.probes import check_probe
from rscl_bench.testing.strategies import check_strategy
from rscl_bench.testing.tiny import start, tiny_spec, tiny_stores, train

__all__ = [
    "check_adapter",
    "check_changing_bands",
    "check_objective",
    "check_probe",
    "check_strategy",
    "start",
    "tiny_spec",
    "tiny_stores",
    "train",
]
