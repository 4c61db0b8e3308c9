"""DeepCluster v2 (Caron et al. 2020, "Unsupervised Learning of Visual Features ...")."""

from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from lightly.loss.swav_loss import sinkhorn
from pydantic import Field
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import StepInfo, TileSampler
from rscl_bench.objectives.embedding import JointEmbedding, in_fp32, mlp
from rscl_bench.objectives.kmeans import spherical_kmeans
from rscl_bench.objectives.prototypes import WHOLE, MultiCropParams, distil_assignments
from rscl_bench.spec import Positive
from rscl_bench.tiles.loader import TaskTiles


class DeepClusterV2Params(MultiCropParams):
    """Clusterings, with views and projector.

    Attributes:
        prototypes: Most prototypes of a clustering.
        tiles_per_prototype: Fewest tiles for each, on average; of fewer tiles there are fewer
            prototypes, but at least two.
        clusterings: Clusterings, whose losses are averaged.
        iterations: Of k-means.
    """

    prototypes: Annotated[int, Field(ge=2)] = 3000
    tiles_per_prototype: Positive = 10
    clusterings: Positive = 3
    iterations: Positive = 10


class DeepClusterV2(JointEmbedding):
    """Predicts which cluster of the last epoch's embeddings an image is in, from every view.

    At the start of an epoch the embeddings of the last one are clustered; the centroids are the
    prototypes, which no gradient moves. An image that the last epoch did not have takes a code of
    its current embedding, balanced over the batch as SwAV's: so does every image of the first epoch
    of a task, whose prototypes are those of the last task, or random ones.

    Attributes:
        prototypes: ``[clusterings, K, P]``, each of length 1; zeros where there are fewer.
    """

    Params = DeepClusterV2Params
    joint_batch = True
    prototypes: Tensor
    embedded: Tensor

    def __init__(self, params: DeepClusterV2Params, encoder: Encoder):
        projector = mlp(encoder.feature_dim, params.hidden_dim, params.output_dim)
        super().__init__(
            params, encoder, params.views, projector, params.output_dim, params.feature
        )
        self.params = params
        shape = (params.clusterings, params.prototypes, params.output_dim)
        self.register_buffer("prototypes", F.normalize(torch.randn(shape), dim=2))
        self._forget(params.prototypes)

    def _forget(self, clusters: int) -> None:
        """Empty the memory."""
        self.clusters = clusters
        self.past = self.prototypes[:, :clusters].clone()
        self.keys: list[Tensor] = []
        self.memory: list[Tensor] = []
        self.known: tuple[Tensor, Tensor] | None = None
        self.current: Tensor | None = None

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy of clusters and predictions, averaged over clusterings."""
        return in_fp32(self._clustered, *projected)

    def _clustered(self, *projected: Tensor) -> Tensor:
        embedded = [F.normalize(one, dim=1) for one in projected]
        self.embedded = torch.stack(embedded[:WHOLE]).detach()
        scores = torch.cat(embedded) @ self.prototypes[:, : self.clusters].mT
        targets = self._targets().repeat(1, len(embedded))
        return F.cross_entropy(scores.flatten(0, 1) / self.params.temperature, targets.flatten())

    def _targets(self) -> Tensor:
        """Return the cluster of every image of the batch in every clustering, ``[H, B]``."""
        heads = []
        for head, prototypes in enumerate(self.prototypes[:, : self.clusters]):
            heads.append(sinkhorn(self.embedded[head % WHOLE] @ prototypes.T).argmax(dim=1))
        targets = torch.stack(heads)
        if self.known is None or self.current is None:
            return targets
        keys, clusters = self.known
        # Strategies may add images after those of the step's tiles.
        own = len(self.current)
        places = torch.searchsorted(keys, self.current).clamp(max=len(keys) - 1)
        found = keys[places] == self.current
        targets[:, :own] = torch.where(found, clusters[:, places], targets[:, :own])
        return targets

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Start an empty memory."""
        self._forget(int(self.prototypes[0].any(dim=1).sum()))

    def task_state(self) -> dict[str, Tensor]:
        """Return the memory, and which cluster every known tile is in."""
        state = {"clusters": torch.tensor(self.clusters), "past": self.past}
        if self.keys:
            state |= {"keys": torch.cat(self.keys), "memory": torch.cat(self.memory, dim=1)}
        if self.known is not None:
            state |= {"known_keys": self.known[0], "known_clusters": self.known[1]}
        return state

    def load_task_state(self, state: dict[str, Tensor]) -> None:
        """Take them back."""
        device = self.prototypes.device
        on_device = {name: value.to(device) for name, value in state.items()}
        self.clusters, self.past = int(state["clusters"]), on_device["past"]
        if "keys" in state:
            self.keys, self.memory = [on_device["keys"]], [on_device["memory"]]
        if "known_keys" in state:
            self.known = on_device["known_keys"], on_device["known_clusters"]

    def before_step(self, info: StepInfo) -> None:
        """Cluster the embeddings of the last epoch when the next one begins."""
        if info.begins_epoch and self.memory:
            self._cluster()
        self.current = _keys(info.tiles).to(self.prototypes.device)

    def after_update(self, info: StepInfo) -> None:
        """Keep the embeddings of the step's tiles."""
        assert self.current is not None
        self.keys.append(self.current)
        self.memory.append(self.embedded[:, : len(self.current)])

    @torch.no_grad()
    def _cluster(self) -> None:
        """Cluster the memory, and empty it.

        Tiles come in random order, so that the first rows are a random choice of first centroids.
        """
        params = self.params
        keys, memory = torch.cat(self.keys), torch.cat(self.memory, dim=1)
        self.keys, self.memory = [], []
        tiles = len(keys)
        self.clusters = max(2, min(params.prototypes, tiles // params.tiles_per_prototype))
        self.prototypes.zero_()
        clusters = []
        for head in range(params.clusterings):
            rows = memory[head % WHOLE]
            first = torch.arange(self.clusters, device=rows.device) + head * self.clusters
            centroids, assigned = spherical_kmeans(rows, rows[first % tiles], params.iterations)
            self.prototypes[head, : self.clusters] = centroids
            clusters.append(assigned)
        keys, order = keys.sort()
        self.known = keys, torch.stack(clusters)[:, order]

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy of assignments to the last task's prototypes."""
        temperature = self.params.temperature
        heads = [distil_assignments(predicted, past, one, temperature) for one in self.past]
        return torch.stack(heads).mean()


def _keys(tiles: Sequence[TaskTiles]) -> Tensor:
    """Return one number for every tile, ``[n]`` int64."""
    return torch.cat([(task << 40) + indices for task, indices in tiles])
