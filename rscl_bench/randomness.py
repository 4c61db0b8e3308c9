"""Keyed randomness: every draw is a function of (seed, task, step, purpose), never of history.

A resumed run, another rank and another method with equal seeds therefore draw equal crops, masks
and mixing coefficients in the same step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import blake2b

import numpy as np
import torch


def key(seed: int, *parts: int | str) -> int:
    """Return a 63-bit key of a seed and a purpose.

    Args:
        seed: The run's seed.
        *parts: The draw's purpose, such as ``(task, step, "crop")``; unique to the draw.

    Returns:
        An integer in [0, 2**63).
    """
    text = "\x1f".join([str(seed), *map(str, parts)])
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def torch_generator(device: torch.device | str, seed: int, *parts: int | str) -> torch.Generator:
    """Return a torch generator on a device, seeded with the key of its purpose."""
    return torch.Generator(device=device).manual_seed(key(seed, *parts))


def numpy_generator(seed: int, *parts: int | str) -> np.random.Generator:
    """Return a NumPy generator seeded with the key of its purpose."""
    return np.random.Generator(np.random.Philox(key=key(seed, *parts)))


@contextmanager
def seeded(seed: int, *parts: int | str) -> Iterator[None]:
    """Seed torch's global CPU generator for a block, and restore its state afterwards.

    Library code without a generator argument needs this: weight initialisation, Avalanche's
    buffers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(key(seed, *parts))
        yield
