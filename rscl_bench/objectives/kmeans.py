"""Spherical k-means."""

import torch
import torch.nn.functional as F
from torch import Tensor

#: Number of rows whose similarities to all centroids are in memory at once.
_CHUNK = 4096


@torch.no_grad()
def spherical_kmeans(rows: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Cluster rows by cosine similarity.

    Dhillon & Modha (2001), "Concept Decompositions for Large Sparse Text Data using Clustering",
    Section 3.2. A centroid without rows does not move.

    Args:
        rows: ``[n, P]``, each row of length 1.
        centroids: Initial centroids, ``[K, P]``, each row of length 1.
        iterations: Number of rounds of assigning rows and averaging clusters.

    Returns:
        The centroids ``[K, P]``, each row of length 1, and the index of the nearest centroid of
        each row, ``[n]`` int64.
    """
    chunks = torch.split(rows, _CHUNK)
    for _ in range(iterations):
        sums = torch.zeros_like(centroids)
        for chunk in chunks:
            # A product with one-hot rows: on a GPU, sums by index come in no fixed order.
            one_hot = chunk.new_zeros(len(chunk), len(centroids))
            sums += one_hot.scatter_(1, _nearest(chunk, centroids)[:, None], 1.0).T @ chunk
        moved = sums.any(dim=1, keepdim=True)
        centroids = torch.where(moved, F.normalize(sums, dim=1), centroids)
    return centroids, torch.cat([_nearest(chunk, centroids) for chunk in chunks])


def _nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    return (rows @ centroids.T).argmax(dim=1)
