"""SwAV and DeepCluster v2 against transcriptions of their paper and its code, over training."""

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers.joint_embeddings import build, cosine, cross_entropy, mean, noise, unit, watched
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.objectives.base import StepInfo
from rscl_bench.objectives.deepcluster_v2 import DeepClusterV2
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import differing, recipe

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
    return [[float((row * unit(prototype)).sum()) for prototype in prototypes] for row in rows]


# SwAV


def swapped(embedded: list[Tensor], prototypes: Tensor, past: Sequence[Sequence[Tensor]]) -> float:
    """Return the loss of two large views and the small ones, codes balanced with a queue's rows."""
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
    """The queue is used once it is full, and each task starts an empty one."""
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
        for epoch in (0, 1, 2)
    }
    assert filled[0] == [0, 8, 16, 24] * 2
    assert filled[1] == [0, 0, 0, 8] * 2
    assert filled[2] == [0] * 8


@pytest.mark.parametrize("frozen", [0, 1, 2])
def test_swav_prototypes_have_length_1_and_wait(frozen: int) -> None:
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


# DeepCluster v2


def slow_kmeans(rows: Tensor, centroids: Tensor, iterations: int) -> tuple[Tensor, list[int]]:
    centroids = centroids.double().clone()

    def nearest(row: Tensor) -> int:
        cosines = [float((row.double() * centroid).sum()) for centroid in centroids]
        return cosines.index(max(cosines))

    for _ in range(iterations):
        assigned = [nearest(row) for row in rows]
        for k in range(len(centroids)):
            members = [row for row, cluster in zip(rows, assigned, strict=True) if cluster == k]
            if members:
                centroids[k] = unit(torch.stack(members).double().mean(dim=0))
    return centroids, [nearest(row) for row in rows]


def clustered(
    embedded: list[Tensor], prototypes: Tensor, targets: Sequence[Sequence[int]]
) -> float:
    """Return the cross-entropy of every view, image and clustering."""
    losses = []
    for centroids, clusters in zip(prototypes, targets, strict=True):
        for view in embedded:
            for scores, cluster in zip(scores_of(view, centroids), clusters, strict=True):
                losses.append(cross_entropy([value / 0.1 for value in scores], cluster))
    return mean(losses)


def codes_of(embedded: list[Tensor], prototypes: Tensor) -> list[list[int]]:
    """Return the cluster of each image by codes balanced over the batch."""
    targets = []
    for head, centroids in enumerate(prototypes):
        codes = sinkhorn(scores_of(embedded[head % 2], centroids), 0.05, 3)
        targets.append([row.index(max(row)) for row in codes])
    return targets


SETTINGS = ((3, 12, 4), (2, 3, 4), (1, 12, 10))


@pytest.mark.parametrize(("clusterings", "most", "least"), SETTINGS)
def test_deepcluster_over_training(
    monkeypatch: pytest.MonkeyPatch, clusterings: int, most: int, least: int
) -> None:
    """First epochs take balanced codes, second ones the clusters of the first ones' embeddings."""
    order: list[list[tuple[int, int]]] = []
    original = DeepClusterV2.before_step

    def before_step(self: DeepClusterV2, info: StepInfo) -> None:
        order.append([(task, int(tile)) for task, tiles in info.tiles for tile in tiles])
        original(self, info)

    monkeypatch.setattr(DeepClusterV2, "before_step", before_step)
    steps = watched(
        "deepcluster-v2", prototypes=most, clusterings=clusterings, tiles_per_prototype=least
    )
    expected_clusters = max(2, min(most, 16 // least))
    rows: list[Tensor] = []
    seen: list[tuple[int, int]] = []
    known: list[dict[tuple[int, int], int]] = []
    prototypes = steps[0].before.prototypes
    assert prototypes.shape == (clusterings, most, 8)
    for tiles, step in zip(order, steps, strict=True):
        first_epoch = step.step < 2
        if step.step == 0:
            rows, seen = [], []
        if step.step == 2:
            known, centres = [], []
            memory = torch.cat(rows, dim=1)
            for head in range(clusterings):
                first = memory[head % 2][
                    [(head * expected_clusters + k) % 16 for k in range(expected_clusters)]
                ]
                centroids, clusters = slow_kmeans(memory[head % 2], first, 10)
                centres.append(centroids)
                known.append(dict(zip(seen, clusters, strict=True)))
            prototypes = torch.stack(centres)
            ours = step.before.prototypes[:, :expected_clusters].double()
            torch.testing.assert_close(ours, prototypes, atol=1e-5, rtol=0)
            assert not step.before.prototypes[:, expected_clusters:].any()
        embedded = embeddings(step.before, step.views)
        if first_epoch:
            targets = codes_of(embedded, prototypes)
        else:
            targets = [[clusters[tile] for tile in tiles] for clusters in known]
        assert step.loss == pytest.approx(clustered(embedded, prototypes, targets), rel=1e-4)
        rows.append(torch.stack(embedded[:2]))
        seen += tiles


def test_deepcluster_prototypes_take_no_gradient() -> None:
    objective = build("deepcluster-v2")
    assert "prototypes" in dict(objective.named_buffers())
    assert all("prototypes" not in name for name, _ in objective.named_parameters())


@pytest.mark.parametrize("strategy", [{"name": "replay", "mode": "batch"}, {"name": "replay"}])
def test_deepcluster_with_images_of_past_tasks(strategy: dict[str, Any]) -> None:
    """Images beyond the step's tiles take balanced codes; tiles of both tasks are told apart."""
    method = recipe({"name": "deepcluster-v2", **build_small()}, [strategy])
    template = start(tiny_spec(method, tasks=2))
    checked = []

    class Check(BaseSGDPlugin):  # type: ignore[misc]
        def before_backward(self, trainer: Any, **_: Any) -> None:
            model = trainer.model
            if model.known is None:
                return
            keys = [(task << 40) + int(t) for task, tiles, _ in trainer.mbatch for t in tiles]
            targets = model._targets()
            assert targets.shape == (3, len(trainer.views[0]))
            balanced = torch.tensor(
                codes_of([view.double() for view in model.embedded], model.prototypes[:, :2])
            )
            known = dict(zip(model.known[0].tolist(), model.known[1].T.tolist(), strict=True))
            for number in range(targets.shape[1]):
                expected = balanced[:, number].tolist()
                if number < len(keys) and keys[number] in known:
                    expected = known[keys[number]]
                assert targets[:, number].tolist() == expected
            checked.append((len(keys), targets.shape[1]))

    template.plugins.append(Check())
    train(template)
    assert len(checked) >= 4
    if "mode" in strategy:
        assert (8, 16) in checked


def build_small() -> dict[str, Any]:
    return {"hidden_dim": 16, "output_dim": 8, "small_views": 1, "prototypes": 12}


def test_deepcluster_defaults() -> None:
    params = build("deepcluster-v2").Params()
    assert (params.prototypes, params.clusterings, params.iterations) == (3000, 3, 10)
    assert (params.temperature, params.tiles_per_prototype) == (0.1, 10)
    assert (params.hidden_dim, params.output_dim, params.small_views) == (2048, 128, 6)


# What they share


def assignments(predicted: Tensor, past: Tensor, prototypes: Tensor) -> float:
    losses = []
    for new, old in zip(predicted, past, strict=True):
        wanted = [math.exp(cosine(old, one) / 0.1) for one in prototypes]
        logits = [cosine(new, one) / 0.1 for one in prototypes]
        terms = [cross_entropy(logits, k) * share for k, share in enumerate(wanted)]
        losses.append(sum(terms) / sum(wanted))
    return mean(losses)


@pytest.mark.parametrize("name", ["swav", "deepcluster-v2"])
def test_distillation_of_cassle(name: str) -> None:
    """Against the prototypes that the last task ended with, while the current ones move."""
    predicted = [noise(4, 8, seed=seed) for seed in (0, 1)]
    past = [noise(4, 8, seed=seed) for seed in (2, 3)]
    steps = watched(name, tiles_per_prototype=4) if name[0] == "d" else watched(name)
    ended, later = steps[3].after, steps[7].before
    if name == "swav":
        heads = ended["prototypes.weight"][None]
        assert differing({"": heads[0]}, {"": later.prototypes.weight})
    else:
        heads = ended["prototypes"][:, :4]
        assert differing({"": heads}, {"": later.prototypes[:, :4]})
    expected = mean(
        [
            assignments(*pair, prototypes)
            for prototypes in heads
            for pair in zip(predicted, past, strict=True)
        ]
    )
    assert float(later.distil(predicted, past).detach()) == pytest.approx(expected, rel=1e-4)
