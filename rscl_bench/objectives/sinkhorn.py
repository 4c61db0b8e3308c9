"""Sinkhorn iterations: assignments to prototypes that use all prototypes equally."""

import torch
from torch import Tensor


@torch.no_grad()
def sinkhorn(scores: Tensor, iterations: int, epsilon: float) -> Tensor:
    """Return the assignments of samples to prototypes, balanced over the samples.

    Caron et al. (2020), "Unsupervised Learning of Visual Features by Contrasting Cluster
    Assignments", Eq. 3 to 5. An iteration gives every prototype an equal share of the samples, then
    every sample a total of 1. All computations are on logarithms, because exp(score / ε) overflows
    float32 for ε below 0.0113 and a score of 1.

    Args:
        scores: Scores of n samples, ``[n, K]`` float32 or float64.
        iterations: Number of iterations.
        epsilon: ε; the assignments get sharper with a smaller ε.

    Returns:
        ``[n, K]``; every row sums to 1.
    """
    logs = scores / epsilon
    for _ in range(iterations):
        logs = logs - logs.logsumexp(dim=0, keepdim=True)
        logs = logs - logs.logsumexp(dim=1, keepdim=True)
    return logs.exp()
