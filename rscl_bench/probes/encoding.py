"""Features of tiles from a frozen encoder."""

import numpy as np
import torch
from numpy.typing import NDArray

from rscl_bench.models.encoder import Encoder, evaluating
from rscl_bench.probes.images import EvalContext, Images, whole_batches


def encode_tiles(encoder: Encoder, images: Images, setting: EvalContext) -> NDArray[np.float32]:
    """Encode whole tiles, resized to the encoder's input; it and its parts keep their mode.

    Args:
        encoder: The encoder.
        images: The tiles, M of them.
        setting: How they reach the encoder.

    Returns:
        ``[M, D]`` float32, the mean over places of every tile.
    """
    features = []
    with evaluating(encoder), torch.inference_mode(), setting.autocast():
        for batch in whole_batches(images, setting):
            features.append(encoder.pool(encoder(batch)).float().cpu().numpy())
    return np.concatenate(features)
