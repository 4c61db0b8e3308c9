"""The state of a run at one moment, as named tensors and JSON-able metadata."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.errors import ArtefactError, TrainingError


class Snapshot(NamedTuple):
    """The state that the rest of a stream depends on.

    Attributes:
        tensors: Weights, buffers, state of strategies and optimiser.
        metadata: Counters and times, JSON-able.
    """

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


@contextmanager
def loading(what: str = "The checkpoint", mend: str = "start over with --force") -> Iterator[None]:
    """Turn the errors of a checkpoint that lacks values, or has values of other shapes.

    A checkpoint of the same run always fits, so such a file was not written by this package.

    Args:
        what: The file that is loaded, for the message.
        mend: What to do, for the message.

    Raises:
        ArtefactError: In place of these errors.
    """
    try:
        yield
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ArtefactError(f"{what} does not fit its run ({reason}); {mend}.") from error


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with a prefix and a dot before every name."""
    return {f"{prefix}.{name}": value for name, value in tensors.items()}


def strip_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors whose names have a prefix, without the prefix and its dot."""
    start = f"{prefix}."
    return {n.removeprefix(start): value for n, value in tensors.items() if n.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return moments and counts of every parameter that has been updated."""
    state = optimiser.state_dict()["state"]
    return {f"{n}.{name}": value for n, row in state.items() for name, value in row.items()}


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Load the tensors of `optimiser_tensors`; rates and decay keep their values."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        number, name = key.split(".")
        state.setdefault(int(number), {})[name] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def has_state(plugin: BaseSGDPlugin) -> bool:
    """Return whether the state of a plugin can be kept in a checkpoint.

    The plugin must have ``state_dict``, which returns tensors by name, and ``load_state_dict``. A
    plugin without state returns an empty dictionary.
    """
    return hasattr(plugin, "state_dict") and hasattr(plugin, "load_state_dict")


def plugin_tensors(plugin: BaseSGDPlugin) -> dict[str, Tensor]:
    """Return the state of a plugin; empty if the plugin offers none.

    Raises:
        TrainingError: If a value is not a tensor.
    """
    state: dict[str, Any] = plugin.state_dict() if has_state(plugin) else {}
    for name, value in state.items():
        if not isinstance(value, Tensor):
            raise TrainingError(
                f"{type(plugin).__name__}.state_dict returned '{name}' of type "
                f"{type(value).__name__}; return tensors only, as checkpoints hold nothing else."
            )
    return state
