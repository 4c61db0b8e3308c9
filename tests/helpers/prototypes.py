"""Transcriptions that the tests of SwAV and of DeepCluster v2 share."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from helpers.joint_embeddings import cosine, cross_entropy, mean, noise, unit

Codes = list[list[float]]


def sinkhorn(scores: Sequence[Sequence[float]], epsilon: float, iterations: int) -> Codes:
    """Return codes ``[B][K]``: Caron et al. (2020), Eq. 3 to 5, prototype by prototype."""
    code = [[math.exp(value / epsilon) for value in row] for row in scores]
    batch, prototypes = len(code), len(code[0])
    for _ in range(iterations):
        for k in range(prototypes):
            total = sum(row[k] for row in code)
            for row in code:
                row[k] /= total * prototypes
        for row in code:
            total = sum(row)
            row[:] = [value / (total * batch) for value in row]
    return [[value * batch for value in row] for row in code]


def embeddings(objective: Any, views: Sequence[Tensor]) -> list[Tensor]:
    """Return the embeddings of all views, of length 1.

    Views of one size pass the encoder as one batch, and all features the projector.
    """
    with torch.no_grad():
        sizes = dict.fromkeys(view.shape[-1] for view in views)
        batches = [[view for view in views if view.shape[-1] == size] for size in sizes]
        pooled = [objective.encoder(torch.cat(batch))[:, 1:].mean(dim=1) for batch in batches]
        rows = [unit(row) for row in objective.projector(torch.cat(pooled))]
    return list(torch.split(torch.stack(rows), len(views[0])))


def scores_of(rows: Tensor, prototypes: Tensor) -> Codes:
    """Return the cosines between rows of length 1 and prototypes, ``[B][K]``."""
    return [[float((row * unit(prototype)).sum()) for prototype in prototypes] for row in rows]


def assignments(predicted: Tensor, past: Tensor, prototypes: Tensor) -> float:
    """Return the cross-entropy between past and predicted assignments to prototypes."""
    losses = []
    for new, old in zip(predicted, past, strict=True):
        wanted = [math.exp(cosine(old, one) / 0.1) for one in prototypes]
        logits = [cosine(new, one) / 0.1 for one in prototypes]
        terms = [cross_entropy(logits, k) * share for k, share in enumerate(wanted)]
        losses.append(sum(terms) / sum(wanted))
    return mean(losses)


def check_distillation(objective: Any, past_prototypes: Tensor) -> None:
    """Check ``distil`` against the prototypes ``[H, K, P]`` that the last task ended with."""
    predicted = [noise(4, 8, seed=seed) for seed in (0, 1)]
    past = [noise(4, 8, seed=seed) for seed in (2, 3)]
    expected = mean(
        [
            assignments(*pair, prototypes)
            for prototypes in past_prototypes
            for pair in zip(predicted, past, strict=True)
        ]
    )
    torch.testing.assert_close(
        float(objective.distil(predicted, past).detach()), expected, rtol=1e-4, atol=0
    )
