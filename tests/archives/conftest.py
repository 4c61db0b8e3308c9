import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rscl_bench import registry


@pytest.fixture(scope="session")
def sketches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the sketches of all archives, not to be changed."""
    root = tmp_path_factory.mktemp("sketches")
    for name in registry.BUILTIN["datasets"]:
        registry.load("datasets", name).write_sketch(root, np.random.default_rng(0))
    return root


@pytest.fixture
def sketch_of(sketches: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copy one sketch by hard links; the test may replace files, but not write into them."""

    def make(name: str) -> Path:
        shutil.copytree(sketches / name, tmp_path / name, copy_function=os.link)
        return tmp_path

    return make
