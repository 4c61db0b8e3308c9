"""A queue of embeddings of past batches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """A ring buffer of the K latest rows, held in buffers, so that ``state_dict`` saves the rows.

    The initial rows are uniform on the sphere, as in MoCo's code.

    Attributes:
        rows: ``[K, P]`` float32. The order of the rows is not their order in time.
        place: Index of the oldest row, which the next row replaces, int64.
    """

    rows: Tensor
    place: Tensor

    def __init__(self, size: int, width: int):
        """Fill the queue with ``size`` random rows of ``width`` values and length 1."""
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Replace the oldest rows by ``[n, P]``. If n > K, the last K of them are kept."""
        size = len(self.rows)
        kept = rows[-size:]
        indices = self.place + torch.arange(len(kept), device=rows.device)
        self.rows.index_copy_(0, indices % size, kept)
        self.place.copy_((self.place + len(kept)) % size)
