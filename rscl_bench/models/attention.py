"""Choice of the attention kernel for a forward pass."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

# Longest sequence for which the plain kernel is faster on a CPU; measured in benchmarks/NOTES.md.
SHORT = 128


@contextmanager
def attention(device: torch.device, tokens: int) -> Iterator[None]:
    """Use the plain attention kernel within the block, if plain attention trains faster.

    On a CPU in bf16, the backward pass of the fused kernel is two to three times slower than plain
    matrix products for short sequences. Forward passes without gradient keep the fused kernel.

    Args:
        device: Device of the forward pass.
        tokens: Length of the sequence.
    """
    slow = device.type == "cpu" and torch.is_autocast_enabled("cpu")
    if slow and torch.is_grad_enabled() and tokens <= SHORT:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    else:
        yield
