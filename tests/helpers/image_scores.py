"""Scores of images, made for tests."""

import numpy as np
from numpy.typing import NDArray


def scored(seed: int, quality: float, images: int = 150) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    return quality * labels_of(images) + rng.normal(size=(images, 3))


def labels_of(images: int = 150) -> NDArray[np.uint8]:
    return (np.random.default_rng(99).random((images, 3)) < 0.4).astype(np.uint8)
