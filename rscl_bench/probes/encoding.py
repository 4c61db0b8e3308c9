"""How labelled tiles reach an encoder, and the features of these tiles."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rscl_bench.models.encoder import Encoder, evaluating
from rscl_bench.spec import Views
from rscl_bench.tiles.loader import read_tiles
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.view import PixelScaling, whole_view

_BATCH = 128


class TileSubset(NamedTuple):
    """The tiles of a store at the indices ``[M]``."""

    store: TileStore
    indices: NDArray[np.int64]


@dataclass(frozen=True)
class EvalContext:
    """How tiles reach an encoder.

    Attributes:
        image_size: Side of the encoder's input in pixels.
        views: The protocol's crop and flip, for images that a probe trains on.
        scaling: Pixel scaling of the probe's training split, on ``device``.
        device: Device of the computation.
        autocast: Returns the context manager of forward passes.
    """

    image_size: int
    views: Views
    scaling: PixelScaling
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]


class FrozenEncoder:
    """An encoder in one fixed state, as probes see the encoder.

    A probe gets features or a copy, never the encoder, so no probe can change the encoder. Equal
    tiles are encoded once, for all probes. Training makes the features outdated: make a new
    `FrozenEncoder` after each task.
    """

    def __init__(self, encoder: Encoder):
        self._encoder = encoder
        self._features: dict[tuple[Any, ...], NDArray[np.float32]] = {}

    def features(self, tiles: TileSubset, context: EvalContext) -> NDArray[np.float32]:
        """Return the features ``[M, D]`` of tiles; see `encode_tiles`. The array is read-only."""
        normalisation = context.scaling.normalisation
        statistics = torch.stack([normalisation.mean, normalisation.std]).cpu().numpy()
        key = (
            tiles.store.digest,
            tiles.indices.tobytes(),
            context.image_size,
            statistics.tobytes(),
            context.scaling.selected,
            context.scaling.channels,
        )
        if key not in self._features:
            self._features[key] = encode_tiles(self._encoder, tiles, context)
            self._features[key].flags.writeable = False
        return self._features[key]

    def copy(self) -> Encoder:
        """Return a copy of the encoder, to train or to change."""
        return deepcopy(self._encoder)


def encode_tiles(encoder: Encoder, tiles: TileSubset, context: EvalContext) -> NDArray[np.float32]:
    """Encode whole tiles, resized to the encoder's input.

    The encoder is in evaluation mode meanwhile. Every submodule gets back the mode that the
    submodule had.

    Args:
        encoder: The encoder.
        tiles: M tiles.
        context: How the tiles reach the encoder.

    Returns:
        Features ``[M, D]`` float32, pooled by the encoder's ``probed_feature``.
    """
    features = []
    with evaluating(encoder), torch.inference_mode(), context.autocast():
        for images in whole_batches(tiles, context):
            features.append(encoder.probed(encoder(images)).float().cpu().numpy())
    return np.concatenate(features)


def whole_batches(tiles: TileSubset, context: EvalContext) -> Iterator[Tensor]:
    """Yield images ``[B, C, H, W]`` of whole tiles, in the order of the tiles; see `whole_view`."""
    for start in range(0, len(tiles.indices), _BATCH):
        raw = read_tiles(tiles.store, tiles.indices[start : start + _BATCH])
        yield whole_view(raw.to(context.device), context.image_size, context.scaling)
