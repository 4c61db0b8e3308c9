"""The images of a probe, and how they reach an encoder."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rscl_bench.spec import Views
from rscl_bench.tiles.loader import read_tiles
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.view import PixelScaling, whole_view

_BATCH = 128


class Images(NamedTuple):
    """Some tiles of a store, by their indices ``[M]``."""

    store: TileStore
    indices: NDArray[np.int64]


@dataclass(frozen=True)
class EvalContext:
    """How images reach an encoder.

    Attributes:
        image_size: Side of the encoder's input.
        views: The protocol's crop and flip, for images that are trained on.
        archive: Of the probe's training split, on ``device``.
        device: Where to compute.
        autocast: Makes the context of forward passes.
    """

    image_size: int
    views: Views
    archive: PixelScaling
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]


def whole_batches(images: Images, setting: EvalContext) -> Iterator[Tensor]:
    """Yield images ``[B, C, H, W]`` in their order; see `whole_view`."""
    for start in range(0, len(images.indices), _BATCH):
        tiles = read_tiles(images.store, images.indices[start : start + _BATCH])
        yield whole_view(tiles.to(setting.device), setting.image_size, setting.archive)
