"""Exact nearest rows; the result does not depend on the number of threads."""

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

_BLOCK_VALUES = 2**17  # float64 values of an intermediate array: 1 MiB fits into a core's cache

Rows = npt.NDArray[np.float64]


def nearest_rows(
    train: npt.NDArray[np.float32], queries: npt.NDArray[np.float32] | None, k: int
) -> npt.NDArray[np.intp]:
    """Return the k nearest training rows of each query, by Euclidean distance.

    scikit-learn finds candidates through a matrix product, whose rounding depends on blocks and
    threads. Among tied rows (duplicate tiles, a collapsed encoder) its choice is arbitrary.
    Therefore the distances to the candidates are computed again from plain differences. If a row
    that is no candidate could tie with the k-th neighbour, the distances to all rows are computed.
    Among equally distant rows, the lower row number comes first.

    Args:
        train: ``[N, D]``, finite.
        queries: ``[Q, D]``; None for the training rows, each without itself among its neighbours.
        k: Number of neighbours, at most ``N``, or ``N - 1`` without queries.

    Returns:
        Row numbers of ``train``, nearest first, ``[Q, k]``.
    """
    rows = np.ascontiguousarray(train, dtype=np.float64)
    points = rows if queries is None else np.ascontiguousarray(queries, dtype=np.float64)
    available = len(rows) - (queries is None)
    count = min(2 * k, available)
    index = NearestNeighbors(n_neighbors=count, algorithm="brute").fit(rows)
    candidates = index.kneighbors(None if queries is None else points, return_distance=False)
    candidates.sort(axis=1)  # a stable sort by distance then orders ties by row number
    distances = _distances(rows, points, candidates)
    order = np.argsort(distances, axis=1, kind="stable")
    nearest = np.take_along_axis(candidates, order[:, :k], axis=1)
    ranked = np.take_along_axis(distances, order, axis=1)
    certain = ranked[:, -1] - ranked[:, k - 1] > _product_noise(rows, points)
    if count == available:
        certain[:] = True
    uncertain = np.flatnonzero(~certain)
    step = max(1, _BLOCK_VALUES // len(rows))
    for start in range(0, len(uncertain), step):
        block = uncertain[start : start + step]
        distances = cdist(points[block], rows, "sqeuclidean")
        if queries is None:
            distances[np.arange(len(block)), block] = np.inf
        nearest[block] = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return nearest


def _distances(rows: Rows, points: Rows, candidates: npt.NDArray[np.intp]) -> Rows:
    """Return the squared distances of each point to its candidate rows, by plain differences."""
    count, width = candidates.shape[1], rows.shape[1]
    step = max(1, _BLOCK_VALUES // (count * width))
    distances = np.empty(candidates.shape)
    for start in range(0, len(points), step):
        block = slice(start, start + step)
        differences = rows[candidates[block]]
        differences -= points[block, None, :]
        np.square(differences, out=differences).sum(axis=2, out=distances[block])
    return distances


def _product_noise(rows: Rows, points: Rows) -> npt.NDArray[np.float64]:
    """Return a bound on twice the rounding of ``|x|² − 2xy + |y|²`` for each point, ``[Q]``."""
    longest = np.sqrt(np.square(rows).sum(axis=1).max())
    reach = np.square(np.sqrt(np.square(points).sum(axis=1)) + longest)
    bound: npt.NDArray[np.float64] = 4 * (rows.shape[1] + 2) * np.finfo(np.float64).eps * reach
    return bound
