"""What training depends on at one moment, as named tensors and plain facts."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Snapshot(NamedTuple):
    """All that the rest of a stream depends on.

    Attributes:
        tensors: Weights, buffers, strategies' state, optimiser.
        metadata: Counters and times, JSON-able.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors by names that begin with a prefix and a dot."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors that `with_prefix` named, under their first names."""
    start = f"{prefix}."
    return {n.removeprefix(start): value for n, value in tensors.items() if n.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return moments and counts of every parameter that has been updated."""
    state = optimiser.state_dict()["state"]
    return {f"{n}.{name}": value for n, row in state.items() for name, value in row.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take back what `optimiser_tensors` returned; rates and decay stay as they are."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
