"""What surrounds every call of TorchGeo: no print, no warning, and draws of the item alone."""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO

import numpy as np
import torch


@contextmanager
def seeded(index: int) -> Iterator[None]:
    """Seed the global generators by an item's index within a block, and restore them after it.

    Some classes of TorchGeo choose one of several seasons at random whenever an item is read.
    """
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    random.seed(index)
    np.random.seed(index % 2**32)  # noqa: NPY002
    torch.default_generator.manual_seed(index)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


@contextmanager
def quiet() -> Iterator[None]:
    """Let a block neither warn nor print: standard output is for results."""
    with warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        yield
