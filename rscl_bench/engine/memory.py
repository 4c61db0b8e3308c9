"""Memory that runs out, as an error in one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from rscl_bench.errors import TrainingError

#: In the messages of torch: of its CPU allocator, of sizes beyond 64 bits, of CUDA's libraries.
_SIGNS = (
    "can't allocate memory",
    "calculation overflowed",
    "multiplication overflow",
    "ALLOC_FAILED",
)


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory ran out."""
    types = (MemoryError, torch.OutOfMemoryError)
    return isinstance(error, types) or any(sign in str(error) for sign in _SIGNS)


@contextmanager
def memory_for(what: str, mend: str) -> Iterator[None]:
    """Name what memory was needed for, where it runs out within a block.

    Args:
        what: What the block does, such as ``"to build the objective"``.
        mend: What the user can do, as an imperative.

    Raises:
        TrainingError: If memory runs out.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(f"There is not enough memory {what}; {mend}.") from error
