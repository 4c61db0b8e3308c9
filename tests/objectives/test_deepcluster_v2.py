"""DeepCluster v2 against a transcription of its paper and code, over training."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from helpers.joint_embeddings import build, cross_entropy, mean, unit, watched
from helpers.prototypes import check_distillation, embeddings, scores_of, sinkhorn
from torch import Tensor

from rscl_bench.avalanche_api import BaseSGDPlugin
from rscl_bench.objectives.base import StepInfo
from rscl_bench.objectives.deepcluster_v2 import DeepClusterV2
from rscl_bench.testing import start, tiny_spec, train
from rscl_bench.testing.tiny import differing, recipe


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
    """A first epoch has balanced codes; a second epoch has clusters of the first's embeddings."""
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
def test_deepcluster_with_replayed_images(strategy: dict[str, Any]) -> None:
    """Images beyond the step's tiles get balanced codes; keys distinguish tiles of both tasks."""
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


def test_distillation_uses_the_last_tasks_prototypes() -> None:
    """The current prototypes have moved since then."""
    steps = watched("deepcluster-v2", tiles_per_prototype=4)
    ended, later = steps[3].after["prototypes"][:, :4], steps[7].before
    assert differing({"": ended}, {"": later.prototypes[:, :4]})
    check_distillation(later, ended)
