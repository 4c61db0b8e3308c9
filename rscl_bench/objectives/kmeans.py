"""Clusters of directions."""

import torch
import torch.nn.functional as F
from torch import Tensor

#: Rows whose similarities to all centroids are held at once.
_PART = 4096


@torch.no_grad()
def spherical_kmeans(rows: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Return centroids, of length 1, and which is nearest to each row, by cosine.

    Dhillon & Modha (2001), "Concept Decompositions for Large Sparse Text Data using Clustering",
    Section 3.2. A centroid that no row is nearest to stays where it is.

    Args:
        rows: ``[n, P]``, each of length 1.
        centroids: The first ones, ``[K, P]``, each of length 1.
        iterations: Of assigning and averaging.

    Returns:
        ``[K, P]`` and ``[n]`` int64.
    """
    parts = torch.split(rows, _PART)
    for _ in range(iterations):
        sums = torch.zeros_like(centroids)
        for part in parts:
            # A product with one-hot rows, since sums by index come in no fixed order on a GPU.
            one_hot = part.new_zeros(len(part), len(centroids))
            sums += one_hot.scatter_(1, _nearest(part, centroids)[:, None], 1.0).T @ part
        moved = sums.any(dim=1, keepdim=True)
        centroids = torch.where(moved, F.normalize(sums, dim=1), centroids)
    return centroids, torch.cat([_nearest(part, centroids) for part in parts])


def _nearest(rows: Tensor, centroids: Tensor) -> Tensor:
    return (rows @ centroids.T).argmax(dim=1)
