"""Real archives in the data root, where RSCL_DATA_ROOT names one."""

import os
from pathlib import Path

import pytest

from rscl_bench.archives.adapter import DatasetAdapter


def real_adapter(cls: type[DatasetAdapter], split: str) -> DatasetAdapter:
    """Open a split of a real archive, or skip the test if the archive is not there."""
    value = os.environ.get("RSCL_DATA_ROOT")
    if not value:
        pytest.skip("RSCL_DATA_ROOT is not set: no real archives to read")
    if not (Path(value) / cls.folder).is_dir():
        pytest.skip(f"RSCL_DATA_ROOT has no folder {cls.folder}")
    return cls(Path(value), split)


def real_splits(cls: type[DatasetAdapter]) -> dict[str, DatasetAdapter]:
    """Open all splits of a real archive, or skip the test if the archive is not there."""
    return {split: real_adapter(cls, split) for split in cls.splits}
