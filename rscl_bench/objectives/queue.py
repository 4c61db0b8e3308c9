"""Queues of embeddings of past batches."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Queue(nn.Module):
    """The latest rows that were pushed, as buffers, so that they are saved with the rest.

    At the start they are drawn evenly on the sphere, as in MoCo's code.

    Attributes:
        rows: ``[K, P]`` float32, in no order of time.
        place: Where the next row goes, int64.
    """

    rows: Tensor
    place: Tensor

    def __init__(self, size: int, width: int):
        super().__init__()
        self.register_buffer("rows", F.normalize(torch.randn(size, width), dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def push(self, rows: Tensor) -> None:
        """Replace the oldest rows, ``[n, P]``; of more than K the last K stay."""
        size = len(self.rows)
        kept = rows[-size:]
        places = self.place + torch.arange(len(kept), device=rows.device)
        self.rows.index_copy_(0, places % size, kept)
        self.place.copy_((self.place + len(kept)) % size)
