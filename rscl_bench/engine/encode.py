"""Features of tiles from a frozen encoder."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from rscl_bench.data.augment import Normalisation, normalised, resized_crops, whole_tiles
from rscl_bench.data.stream import read_tiles
from rscl_bench.data.tile_store import TileStore
from rscl_bench.models.encoder import Encoder, evaluating

BATCH = 128


def encode_tiles(
    encoder: Encoder,
    store: TileStore,
    indices: NDArray[np.int64],
    image_size: int,
    normalisation: Normalisation,
    device: torch.device,
    autocast: Callable[[], AbstractContextManager[Any]],
) -> NDArray[np.float32]:
    """Encode whole tiles, resized to the encoder's input; it and its parts keep their mode.

    Args:
        encoder: The encoder.
        store: The tiles.
        indices: Which of them, ``[M]``.
        image_size: Side of the encoder's input.
        normalisation: Of the probe's training split, on ``device``.
        device: Where to compute.
        autocast: Makes the context of forward passes.

    Returns:
        ``[M, D]`` float32, the mean patch token of every tile.
    """
    features = []
    with evaluating(encoder), torch.inference_mode(), autocast():
        for start in range(0, len(indices), BATCH):
            tiles = read_tiles(store, indices[start : start + BATCH]).to(device)
            count, height, width, _ = tiles.shape
            crops = whole_tiles(count, height, width, device)
            images = normalised(resized_crops(tiles, crops, image_size), normalisation)
            features.append(encoder.pool(encoder(images)).float().cpu().numpy())
    return np.concatenate(features)
