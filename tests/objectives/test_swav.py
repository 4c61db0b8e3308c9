"""SwAV against a transcription of its paper and code, over training."""

import math
from collections.abc import Sequence

import pytest
import torch
from helpers.joint_embeddings import build, cosine, cross_entropy, mean, noise, watched
from helpers.prototypes import embeddings, scores_of, sinkhorn
from torch import Tensor

from rscl_bench.errors import SpecError
from rscl_bench.testing.tiny import differing


def swapped(embedded: list[Tensor], prototypes: Tensor, past: Sequence[Sequence[Tensor]]) -> float:
    """Return the loss of all views; the queue's rows help to balance the codes."""
    losses = []
    for number in range(2):
        rows = [*embedded[number], *past[number]]
        codes = sinkhorn(scores_of(torch.stack(rows), prototypes), 0.05, 3)
        for other, view in enumerate(embedded):
            if other == number:
                continue
            for scores, code in zip(scores_of(view, prototypes), codes, strict=False):
                logits = [value / 0.1 for value in scores]
                terms = [share * cross_entropy(logits, k) for k, share in enumerate(code)]
                losses.append(sum(terms))
    return mean(losses)


@pytest.mark.parametrize(("queue", "small_views"), [(0, 2), (8, 1), (16, 0), (12, 2)])
def test_swav_over_training(queue: int, small_views: int) -> None:
    """The queue is used once it is full; each task starts with an empty queue."""
    past: list[list[Tensor]] = [[], []]
    for step in watched("swav", queue=queue, small_views=small_views):
        if step.step == 0:
            past = [[], []]
        prototypes = step.before.prototypes.weight.detach()
        embedded = embeddings(step.before, step.views)
        full = queue > 0 and len(past[0]) >= queue
        expected = swapped(embedded, prototypes, [rows[-queue:] if full else [] for rows in past])
        assert step.loss == pytest.approx(expected, rel=1e-4)
        for rows, view in zip(past, embedded, strict=False):
            rows.extend(view)


def test_swav_queue_starts_at_its_epoch() -> None:
    filled = {
        epoch: [step.before.queued for step in watched("swav", queue=16, queue_epoch=epoch)]
        for epoch in (0, 1)
    }
    assert filled[0] == [0, 8, 16, 24] * 2
    assert filled[1] == [0, 0, 0, 8] * 2


def test_queue_that_never_starts_is_refused() -> None:
    """Two epochs a task are epochs 0 and 1; without a queue, its epoch does not matter."""
    with pytest.raises(SpecError, match=r"epoch 2.* has 2 epochs; set objective\.queue = 0"):
        watched("swav", queue=16, queue_epoch=2)
    assert len(watched("swav", queue=0, queue_epoch=2)) == 8


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_swav_prototypes_have_length_1_and_are_frozen_at_first(frozen: int) -> None:
    for step in watched("swav", freeze_epochs=frozen):
        before, after = step.before.prototypes.weight, step.after["prototypes.weight"]
        torch.testing.assert_close(before.norm(dim=1), torch.ones(12))
        torch.testing.assert_close(after.norm(dim=1), torch.ones(12))
        moved = (before - after).abs().max() > 1e-5
        # The rate of a task's first step is 0.
        assert moved == (step.step > 0 and step.step // 2 >= frozen)


def test_swav_defaults() -> None:
    params = build("swav").Params()
    assert (params.prototypes, params.epsilon, params.sinkhorn_iterations) == (3000, 0.05, 3)
    assert (params.temperature, params.freeze_epochs) == (0.1, 1)
    assert (params.queue, params.queue_epoch) == (3840, 15)
    assert (params.hidden_dim, params.output_dim, params.small_views) == (2048, 128, 6)
    objective = build("swav", hidden_dim=7, output_dim=5)
    shapes = [tuple(p.shape) for p in objective.projector.parameters()]
    assert shapes == [(7, 24), (7,), (7,), (5, 7), (5,)]
    assert objective.prototypes.bias is None


def test_distillation_uses_the_last_tasks_prototypes() -> None:
    """For the targets; the current prototypes have moved since then."""
    steps = watched("swav")
    ended, later = steps[3].after["prototypes.weight"], steps[7].before
    assert differing({"": ended}, {"": later.prototypes.weight})
    scores = [noise(4, 12, seed=seed) for seed in (0, 1)]
    past = [noise(4, 8, seed=seed) for seed in (2, 3)]
    losses = []
    for row, old in zip(torch.cat(scores), torch.cat(past), strict=True):
        wanted = [math.exp(cosine(old, one) / 0.1) for one in ended]
        logits = [float(value) / 0.1 for value in row]
        terms = [cross_entropy(logits, k) * share for k, share in enumerate(wanted)]
        losses.append(sum(terms) / sum(wanted))
    assert float(later.distil(scores, past)) == pytest.approx(mean(losses), rel=1e-4)
