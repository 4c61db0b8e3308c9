"""DeepCluster v2 (Caron et al. 2020, "Unsupervised Learning of Visual Features ...")."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import StepInfo, TileSampler
from rscl_bench.objectives.embedding import JointEmbedding, in_fp32, mlp
from rscl_bench.objectives.kmeans import spherical_kmeans
from rscl_bench.objectives.prototypes import LARGE_VIEWS, MultiCropParams, distil_assignments
from rscl_bench.objectives.sinkhorn import sinkhorn
from rscl_bench.spec import Positive, Several
from rscl_bench.tiles.loader import TaskTiles

#: Sinkhorn iterations, and ε, of the codes that stand in for clusters; the values of SwAV.
_ITERATIONS, _EPSILON = 3, 0.05


class DeepClusterV2Params(MultiCropParams):
    """Clusterings, in addition to views and projector.

    Attributes:
        prototypes: Largest number of prototypes of a clustering.
        tiles_per_prototype: Smallest mean number of tiles per prototype. A small task has fewer
            prototypes, but at least two.
        clusterings: Number H of clusterings, whose losses are averaged.
        iterations: Iterations of k-means.
    """

    prototypes: Several = 3000
    tiles_per_prototype: Positive = 10
    clusterings: Positive = 3
    iterations: Positive = 10


class DeepClusterV2(JointEmbedding):
    """Predicts the cluster of an image, among clusters of the last epoch's embeddings.

    At the start of an epoch, the embeddings of the last epoch are clustered. The centroids are the
    prototypes; no gradient moves the prototypes. Every view predicts the cluster of its image.

    An image without an embedding in the last epoch gets a code of its current embedding instead,
    balanced over the batch as in SwAV. In the first epoch of a task, this holds for every image;
    the prototypes are then those of the last task, or random ones in the first task.

    Attributes:
        prototypes: ``[H, K, P]``, each row of length 1; rows beyond the number of clusters are 0.
        embedded: Embeddings of the current batch's large views, ``[2, B, P]``.
        clusters: Number of prototypes in use.
        past: Prototypes of the last task, ``[H, clusters, P]``.
        keys: Keys of the tiles that this epoch has embedded, one ``[B]`` int64 per step.
        memory: Embeddings of these tiles, one ``[2, B, P]`` per step.
        known: Sorted keys ``[n]`` and clusters ``[H, n]`` of the last epoch's tiles, if any.
        current: Keys of the current batch's tiles, ``[B]`` int64.
    """

    Params = DeepClusterV2Params
    least_batch = 2
    joint_batch = True
    prototypes: Tensor
    embedded: Tensor

    def __init__(self, params: DeepClusterV2Params, encoder: Encoder):
        projector = mlp(encoder.feature_dim, params.hidden_dim, params.output_dim)
        super().__init__(params, encoder, params.views, projector)
        self.params = params
        shape = (params.clusterings, params.prototypes, params.output_dim)
        self.register_buffer("prototypes", F.normalize(torch.randn(shape), dim=2))
        self._forget(params.prototypes)

    def _forget(self, clusters: int) -> None:
        """Forget the tiles of the last task, and keep its first ``clusters`` prototypes."""
        self.clusters = clusters
        self.past = self.prototypes[:, :clusters].clone()
        self.keys: list[Tensor] = []
        self.memory: list[Tensor] = []
        self.known: tuple[Tensor, Tensor] | None = None
        self.current: Tensor | None = None

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy between clusters and predictions, averaged over clusterings."""
        return in_fp32(self._cluster_prediction, *projected)

    def _cluster_prediction(self, *projected: Tensor) -> Tensor:
        embedded = [F.normalize(view, dim=1) for view in projected]
        self.embedded = torch.stack(embedded[:LARGE_VIEWS]).detach()
        scores = torch.cat(embedded) @ self.prototypes[:, : self.clusters].mT
        targets = self._targets().repeat(1, len(embedded))
        return F.cross_entropy(scores.flatten(0, 1) / self.params.temperature, targets.flatten())

    def _targets(self) -> Tensor:
        """Return the cluster of every image of the batch in every clustering, ``[H, B]``."""
        codes = []
        for head, prototypes in enumerate(self.prototypes[:, : self.clusters]):
            embedded = self.embedded[head % LARGE_VIEWS]
            codes.append(sinkhorn(embedded @ prototypes.T, _ITERATIONS, _EPSILON).argmax(dim=1))
        targets = torch.stack(codes)
        if self.known is None or self.current is None:
            return targets
        keys, clusters = self.known
        # A strategy may append images to those of the step's tiles; they keep their codes.
        count = len(self.current)
        indices = torch.searchsorted(keys, self.current).clamp(max=len(keys) - 1)
        is_known = keys[indices] == self.current
        targets[:, :count] = torch.where(is_known, clusters[:, indices], targets[:, :count])
        return targets

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Start the task with an empty memory."""
        self._forget(int(self.prototypes[0].any(dim=1).sum()))

    def task_state(self) -> dict[str, Tensor]:
        """Return the memory of this epoch, and the clusters of the last epoch's tiles."""
        state = {"clusters": torch.tensor(self.clusters), "past": self.past}
        if self.keys:
            state |= {"keys": torch.cat(self.keys), "memory": torch.cat(self.memory, dim=1)}
        if self.known is not None:
            state |= {"known_keys": self.known[0], "known_clusters": self.known[1]}
        return state

    def load_task_state(self, state: dict[str, Tensor]) -> None:
        """Restore the state returned by `task_state`."""
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
        """Append the embeddings of the step's tiles to the memory."""
        assert self.current is not None
        self.keys.append(self.current)
        self.memory.append(self.embedded[:, : len(self.current)])

    @torch.no_grad()
    def _cluster(self) -> None:
        """Cluster the memory, then empty it.

        The tiles of an epoch come in random order, so that the first rows of the memory are a
        random choice of initial centroids.
        """
        params = self.params
        keys, memory = torch.cat(self.keys), torch.cat(self.memory, dim=1)
        self.keys, self.memory = [], []
        tiles = len(keys)
        self.clusters = max(2, min(params.prototypes, tiles // params.tiles_per_prototype))
        self.prototypes.zero_()
        clusters = []
        for head in range(params.clusterings):
            rows = memory[head % LARGE_VIEWS]
            initial = torch.arange(self.clusters, device=rows.device) + head * self.clusters
            centroids, assigned = spherical_kmeans(rows, rows[initial % tiles], params.iterations)
            self.prototypes[head, : self.clusters] = centroids
            clusters.append(assigned)
        keys, order = keys.sort()
        self.known = keys, torch.stack(clusters)[:, order]

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return CaSSLe's loss with the last task's prototypes; see `distil_assignments`."""
        temperature = self.params.temperature
        losses = [
            distil_assignments(predicted, past, prototypes, temperature) for prototypes in self.past
        ]
        return torch.stack(losses).mean()


def _keys(tiles: Sequence[TaskTiles]) -> Tensor:
    """Return one key for every tile, unique over tasks, ``[n]`` int64."""
    return torch.cat([(task << 40) + indices for task, indices in tiles])
