"""MoCo v2 against a transcription of its paper, image by image."""

import pytest
import torch
from helpers.joint_embeddings import (
    build,
    check_teacher,
    cosine,
    cross_entropy,
    keys_of,
    mean,
    noise,
    projections,
    unit,
    watched,
)
from torch import Tensor, nn

from rscl_bench.testing.tiny import state_of


def moco(queries: Tensor, keys: Tensor, negatives: list[Tensor], temperature: float) -> float:
    """Return the loss of He et al. (2020), Eq. 1: one positive, and the queue as negatives."""
    losses = []
    for query, key in zip(queries, keys, strict=True):
        cosines = [cosine(query, other) for other in (key, *negatives)]
        losses.append(cross_entropy([value / temperature for value in cosines], 0))
    return mean(losses)


@pytest.mark.parametrize(("queue", "symmetric"), [(20, False), (20, True), (5, False), (65, True)])
def test_moco_v2_over_training(queue: int, symmetric: bool) -> None:
    """Loss, queue and teacher. The queue of 20 is no multiple of the batch of 8; 5 is smaller."""
    steps = watched("moco-v2", queue=queue, symmetric=symmetric)
    rows, place = list(steps[0].before.queue.rows.clone()), 0
    assert all(float(row.norm()) == pytest.approx(1) for row in rows)
    for step in steps:
        queries = projections(step.before, step.views)
        keys = keys_of(step.before, step.views)
        ways = [(queries[0], keys[1]), (queries[1], keys[0])][: 2 if symmetric else 1]
        expected = mean([moco(*way, rows, 0.2) for way in ways])
        assert step.loss == pytest.approx(expected, rel=1e-4)
        for key in [row for _, batch in ways for row in batch]:
            rows[place] = unit(key).float()
            place = (place + 1) % queue
        latest = sorted(row.tolist() for row in step.after["queue.rows"])
        for one, other in zip(latest, sorted(row.tolist() for row in rows), strict=True):
            assert one == pytest.approx(other, abs=1e-5)
        check_teacher(step, 0.999)


def test_moco_v2_defaults() -> None:
    params = build("moco-v2").Params()
    assert (params.temperature, params.queue, params.momentum) == (0.2, 65536, 0.999)
    assert (params.hidden_dim, params.output_dim, params.symmetric) == (2048, 128, False)
    layers = build("moco-v2", hidden_dim=7, output_dim=5).projector
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear]
    assert [tuple(p.shape) for p in layers.parameters()] == [(7, 24), (7,), (5, 7), (5,)]


@pytest.mark.parametrize("symmetric", [False, True])
def test_moco_v2_queue_changes_only_with_updates(symmetric: bool) -> None:
    """A forward pass without an update, such as a strategy's, does not change the queue."""
    objective = build("moco-v2", symmetric=symmetric)
    before = state_of(objective.queue)
    generator = torch.Generator()
    objective([noise(4, 3, 16, 16)] * 2, generator)
    assert torch.equal(before["rows"], objective.queue.rows)
