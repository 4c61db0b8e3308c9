"""SimCLR against a transcription of its paper, image by image."""

import math

import pytest
import torch
from helpers.joint_embeddings import build, cosine, mean, noise, projections, watched
from torch import Tensor


def nt_xent(views: list[Tensor], temperature: float) -> float:
    """Return Chen et al. (2020), Eq. 1, averaged over all ordered positive pairs."""
    rows = [row for view in views for row in view]
    count = len(views[0])
    losses = []
    for number, row in enumerate(rows):
        pair = (number + count) % len(rows)
        total = sum(
            math.exp(cosine(row, other) / temperature)
            for place, other in enumerate(rows)
            if place != number
        )
        losses.append(-math.log(math.exp(cosine(row, rows[pair]) / temperature) / total))
    return mean(losses)


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_is_eq_1(temperature: float) -> None:
    views = [noise(5, 8), noise(5, 8, seed=1)]
    objective = build("simclr", temperature=temperature)
    assert float(objective.compare(views, [])) == pytest.approx(
        nt_xent(views, temperature), rel=1e-5
    )


def test_simclr_over_training() -> None:
    """Both views share the projector's batch statistics, as in the authors' code."""
    for step in watched("simclr"):
        (both,) = projections(step.before, [torch.cat(list(step.views))])
        assert step.loss == pytest.approx(nt_xent(list(both.chunk(2)), 0.1), rel=1e-4)


def test_simclr_defaults() -> None:
    objective = build("simclr", hidden_dim=2048, output_dim=128)
    shapes = [tuple(p.shape) for p in objective.projector.parameters()]
    assert shapes == [(2048, 24), (2048,), (2048,), (128, 2048), (128,), (128,)]
    assert objective.Params().temperature == 0.1
    assert (objective.Params().hidden_dim, objective.Params().output_dim) == (2048, 128)
    assert objective.projected_dim == 128
