"""SimCLR, MoCo v2 and MoCo v3 against transcriptions of their papers, image by image."""

import math

import pytest
import torch
from helpers.joint_embeddings import (
    RESNET,
    build,
    check_teacher,
    cosine,
    cosine_schedule,
    cross_entropy,
    keys_of,
    mean,
    noise,
    projections,
    unit,
    watched,
)
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.objectives.embedding import contrast, distil_by_contrast
from rscl_bench.objectives.queue import Queue
from rscl_bench.testing.tiny import state_of


def nt_xent(views: list[Tensor], temperature: float) -> float:
    """Chen et al. (2020), Eq. 1, averaged over all ordered positive pairs."""
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


def diagonal(queries: Tensor, keys: Tensor, temperature: float) -> float:
    """Return the cross-entropy of telling each query's own key from all keys."""
    return mean(
        [
            cross_entropy([cosine(query, key) / temperature for key in keys], number)
            for number, query in enumerate(queries)
        ]
    )


# SimCLR


@pytest.mark.parametrize("temperature", [0.1, 0.5])
def test_simclr_is_eq_1(temperature: float) -> None:
    views = [noise(5, 8), noise(5, 8, seed=1)]
    objective = build("simclr", temperature=temperature)
    assert float(objective.compare(views, [])) == pytest.approx(
        nt_xent(views, temperature), rel=1e-5
    )


def test_simclr_over_training() -> None:
    """The projector's batch normalisation is over both views, as in the authors' code."""
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


# MoCo v2


def moco(queries: Tensor, keys: Tensor, negatives: list[Tensor], temperature: float) -> float:
    """He et al. (2020), Eq. 1: one positive, and the queue."""
    losses = []
    for query, key in zip(queries, keys, strict=True):
        cosines = [cosine(query, other) for other in (key, *negatives)]
        losses.append(cross_entropy([value / temperature for value in cosines], 0))
    return mean(losses)


@pytest.mark.parametrize(("queue", "symmetric"), [(20, False), (20, True), (5, False), (65, True)])
def test_moco_v2_over_training(queue: int, symmetric: bool) -> None:
    """Loss, queue and teacher; 20 is no multiple of the batch of 8, and 5 is less than it."""
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
def test_moco_v2_queue_moves_with_updates_alone(symmetric: bool) -> None:
    """A pass for something else, such as a strategy's, leaves it alone."""
    objective = build("moco-v2", symmetric=symmetric)
    before = state_of(objective.queue)
    generator = torch.Generator()
    objective([noise(4, 3, 16, 16)] * 2, generator)
    assert torch.equal(before["rows"], objective.queue.rows)


def test_queue_is_first_in_first_out() -> None:
    queue = Queue(5, 2)
    pushed = torch.arange(26.0).view(13, 2)
    for rows in torch.split(pushed, [2, 4, 7]):
        queue.push(rows)
        end = int(rows[-1, 1] + 1) // 2
        kept = {tuple(row) for row in pushed[max(0, end - 5) : end].tolist()}
        assert kept <= {tuple(row) for row in queue.rows.tolist()}
    assert {"rows", "place"} == set(queue.state_dict())


# MoCo v3


@pytest.mark.parametrize("temperature", [0.2, 1.0])
def test_moco_v3_over_training(temperature: float) -> None:
    """Algorithm 1, with 2τ before the cross-entropy, and the teacher's cosine schedule."""
    for step in watched("moco-v3", temperature=temperature):
        keys = keys_of(step.before, step.views)
        with torch.no_grad():
            queries = [step.before.predictor(one) for one in projections(step.before, step.views)]
        both = diagonal(queries[0], keys[1], temperature) + diagonal(
            queries[1], keys[0], temperature
        )
        assert step.loss == pytest.approx(2 * temperature * both, rel=1e-4)
        check_teacher(step, cosine_schedule(0.99, step.step))


def test_moco_v3_heads() -> None:
    objective = build("moco-v3", hidden_dim=7, output_dim=5)
    normed = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert [type(layer) for layer in objective.projector] == [*normed * 2, *normed[:2]]
    assert [type(layer) for layer in objective.predictor] == [*normed, *normed[:2]]
    for head in (objective.projector, objective.predictor):
        assert not head[-1].affine
        assert all(layer.bias is None for layer in head if isinstance(layer, nn.Linear))
    widths = [layer.out_features for layer in objective.projector if isinstance(layer, nn.Linear)]
    assert widths == [7, 7, 5]
    params = objective.Params()
    assert (params.hidden_dim, params.output_dim, params.temperature) == (4096, 256, 0.2)
    assert (params.momentum, params.freeze_patches) == (0.99, True)


@pytest.mark.parametrize("frozen", [True, False])
def test_moco_v3_freezes_the_patch_embedding(frozen: bool) -> None:
    steps = watched("moco-v3", freeze_patches=frozen)
    name = "encoder.masked_vit.vit.patch_embed.proj.weight"
    first = dict(steps[0].before.named_parameters())[name]
    assert torch.equal(first, steps[-1].after[name]) == frozen
    others = {part for part, value in steps[0].before.encoder.named_parameters()}
    assert all(
        p.requires_grad != (frozen and "patch_embed" in part)
        for part, p in steps[-1].before.encoder.named_parameters()
        if part in others and "pos_embed" not in part
    )


def test_moco_v3_freezes_nothing_of_a_resnet() -> None:
    objective = build("moco-v3", backbone=RESNET)
    assert all(p.requires_grad for p in objective.encoder.parameters())


# What they share


def test_contrast_is_the_transcription() -> None:
    queries, keys = noise(6, 4), noise(6, 4, seed=1)
    assert float(contrast(queries, keys, 0.3)) == pytest.approx(diagonal(queries, keys, 0.3))


@pytest.mark.parametrize("name", ["simclr", "moco-v2", "moco-v3"])
def test_distillation_of_cassle(name: str) -> None:
    """Both ways, over the 2B × 2B cosines of both views, at CaSSLe's own temperature."""
    predicted = [noise(4, 8, seed=seed) for seed in (0, 1)]
    past = [noise(4, 8, seed=seed) for seed in (2, 3)]
    new, old = torch.cat(predicted), torch.cat(past)
    expected = (diagonal(new, old, 0.2) + diagonal(old, new, 0.2)) / 2
    assert float(build(name).distil(predicted, past)) == pytest.approx(expected, rel=1e-5)
    assert float(distil_by_contrast(predicted, past)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["simclr", "moco-v2", "moco-v3"])
def test_temperature_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match="temperature"):
        build(name, temperature=0.0)
