import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.archives import SKETCHED
from helpers.paths import ADAPTERS
from hypothesis import settings

from rscl_bench import registry
from rscl_bench.randomness import numpy_generator

# Time limits fail on a busy machine without a fault of the code; failures must be reproducible.
settings.register_profile("rscl", deadline=None, derandomize=True)
settings.load_profile("rscl")
torch.set_num_threads(1)
# A background job of a shell ignores SIGINT, and a job of nohup ignores SIGHUP. The processes that
# tests start would inherit this.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the toy archive."""
    root = tmp_path_factory.mktemp("toy-data")
    toy = registry.load("datasets", f"{ADAPTERS}:Toy")
    toy.write_sketch(root, numpy_generator(0, "toy"))
    return root


@pytest.fixture(scope="session")
def toy_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache of the toy archive's tile stores."""
    return tmp_path_factory.mktemp("toy-cache")


@pytest.fixture(scope="session")
def sketches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the sketches of all archives; tests must not change the files."""
    root = tmp_path_factory.mktemp("sketches")
    for name in SKETCHED:
        registry.load("datasets", name).write_sketch(root, np.random.default_rng(0))
    return root


@pytest.fixture
def sketch_of(sketches: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Copy one sketch by hard links; the test may replace files, but not write into them."""

    def make(name: str) -> Path:
        folder = registry.load("datasets", name).folder
        shutil.copytree(sketches / folder, tmp_path / folder, copy_function=os.link)
        return tmp_path

    return make
