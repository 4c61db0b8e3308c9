"""Exact nearest rows with ties settled by row number, whatever the thread count."""

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import cdist
from sklearn.neighbors import NearestNeighbors

_BLOCK_VALUES = 2**17  # float64 values of one intermediate array: 1 MiB stays in a core's cache

Rows = npt.NDArray[np.float64]


def nearest_rows(
    train: npt.NDArray[np.float32], queries: npt.NDArray[np.float32] | None, k: int
) -> npt.NDArray[np.intp]:
    """Return the k nearest training rows of each query, by Euclidean distance.

    scikit-learn proposes candidates through a matrix product, whose rounding depends on the block
    and the thread: among tied rows (duplicate tiles, a collapsed encoder) its choice is arbitrary.
    So the candidates are measured again by plain differences, and where rows outside of them could
    tie with the k-th, all rows are. Of rows equally far, the lower row number comes first.

    Args:
        train: ``[N, D]``, finite.
        queries: ``[Q, D]``; None asks for the neighbours of each training row *excluding itself*.
        k: Neighbours, at most ``N``, or ``N - 1`` without queries.

    Returns:
        ``[Q, k]`` row numbers of ``train``, nearest first.
    """
    known = np.ascontiguousarray(train, dtype=np.float64)
    asked = known if queries is None else np.ascontiguousarray(queries, dtype=np.float64)
    available = len(known) - (queries is None)
    wanted = min(2 * k, available)
    index = NearestNeighbors(n_neighbors=wanted, algorithm="brute").fit(known)
    candidates = index.kneighbors(None if queries is None else asked, return_distance=False)
    candidates.sort(axis=1)  # so that a stable sort by distance settles ties by row number
    distances = _distances(known, asked, candidates)
    order = np.argsort(distances, axis=1, kind="stable")
    nearest = np.take_along_axis(candidates, order[:, :k], axis=1)
    ranked = np.take_along_axis(distances, order, axis=1)
    complete = ranked[:, -1] - ranked[:, k - 1] > _product_noise(known, asked)
    if wanted == available:
        complete[:] = True
    unsure = np.flatnonzero(~complete)
    step = max(1, _BLOCK_VALUES // len(known))
    for start in range(0, len(unsure), step):
        rows = unsure[start : start + step]
        distances = cdist(asked[rows], known, "sqeuclidean")
        if queries is None:
            distances[np.arange(len(rows)), rows] = np.inf
        nearest[rows] = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return nearest


def _distances(known: Rows, asked: Rows, candidates: npt.NDArray[np.intp]) -> Rows:
    """Return the squared distances of each asked row to its candidates, by plain differences."""
    wanted, width = candidates.shape[1], known.shape[1]
    step = max(1, _BLOCK_VALUES // (wanted * width))
    distances = np.empty(candidates.shape)
    for start in range(0, len(asked), step):
        block = slice(start, start + step)
        gaps = known[candidates[block]]
        gaps -= asked[block, None, :]
        np.square(gaps, out=gaps).sum(axis=2, out=distances[block])
    return distances


def _product_noise(known: Rows, asked: Rows) -> npt.NDArray[np.float64]:
    """Bound twice the rounding of squared distances from ``|x|² − 2xy + |y|²``, per query."""
    longest = np.sqrt(np.square(known).sum(axis=1).max())
    reach = np.square(np.sqrt(np.square(asked).sum(axis=1)) + longest)
    bound: npt.NDArray[np.float64] = 4 * (known.shape[1] + 2) * np.finfo(np.float64).eps * reach
    return bound
