"""Which attention kernel a forward pass takes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

# Where the plain kernel stops being faster on a CPU; benchmarks/NOTES.md has the measurements.
SHORT = 128


@contextmanager
def attention(device: torch.device, tokens: int) -> Iterator[None]:
    """Take plain attention where it trains faster than torch's own choice.

    On a CPU in bf16 the backward pass of the fused kernel is two to three times slower than that
    of plain matrix products while sequences are short. Forward passes without gradient keep it.

    Args:
        device: Where the pass runs.
        tokens: Length of the sequence.
    """
    slow = device.type == "cpu" and torch.is_autocast_enabled("cpu")
    if slow and torch.is_grad_enabled() and tokens <= SHORT:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield
