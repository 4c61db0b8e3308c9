"""SwAV (Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting ...")."""

from collections.abc import Sequence
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from lightly.loss import SwaVLoss
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import StepInfo, TileSampler
from rscl_bench.objectives.embedding import JointEmbedding, in_fp32, mlp
from rscl_bench.objectives.prototypes import WHOLE, MultiCropParams, distil_assignments
from rscl_bench.objectives.queue import Queue
from rscl_bench.spec import Positive

Count = Annotated[int, Field(ge=0)]


class SwAVParams(MultiCropParams):
    """Prototypes, codes and queue, with views and projector.

    Attributes:
        prototypes: K.
        epsilon: ε, smoothness of the codes.
        sinkhorn_iterations: Of the codes.
        freeze_epochs: Epochs at the start of a task in which prototypes do not move.
        queue: Embeddings of past batches that codes are balanced with; 0 for none.
        queue_epoch: Epoch of a task, from 0, from which the queue is filled; it is used when full.
    """

    prototypes: Positive = 3000
    epsilon: Annotated[float, Field(ge=1e-3)] = 0.05
    sinkhorn_iterations: Positive = 3
    freeze_epochs: Count = 1
    queue: Count = 3840
    queue_epoch: Count = 15


class SwAV(JointEmbedding):
    """Predicts the code of one view, balanced over the batch, from every other one (Eq. 1 to 5)."""

    Params = SwAVParams
    joint_batch = True
    past_prototypes: Tensor

    def __init__(self, params: SwAVParams, encoder: Encoder):
        projector = mlp(encoder.feature_dim, params.hidden_dim, params.output_dim)
        super().__init__(
            params, encoder, params.views, projector, params.output_dim, params.feature
        )
        self.params = params
        # lightly's prototypes have a bias.
        self.prototypes = nn.Linear(params.output_dim, params.prototypes, bias=False)
        self._normalise()
        self.register_buffer("past_prototypes", self.prototypes.weight.detach().clone())
        queues = range(WHOLE if params.queue else 0)
        self.queues = nn.ModuleList(Queue(params.queue, params.output_dim) for _ in queues)
        self.queued = 0
        self.embedded: list[Tensor] = []
        self.loss = SwaVLoss(params.temperature, params.sinkhorn_iterations, params.epsilon)

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy of codes and predictions, averaged over pairs of views."""
        return in_fp32(self._swapped, *projected)

    def _swapped(self, *projected: Tensor) -> Tensor:
        embedded = [F.normalize(one, dim=1) for one in projected]
        self.embedded = [one.detach() for one in embedded[:WHOLE]]
        scores = [self.prototypes(one) for one in embedded]
        queued = None
        if self.queues and self.queued >= self.params.queue:
            queued = [self.prototypes(queue.rows) for queue in self.queues]
        loss: Tensor = self.loss(scores[:WHOLE], scores[WHOLE:], queued)
        return loss.squeeze()

    @torch.no_grad()
    def _normalise(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Keep the prototypes for `distil`, and start an empty queue."""
        self.past_prototypes.copy_(self.prototypes.weight.detach())
        self.queued = 0

    def task_state(self) -> dict[str, Tensor]:
        """Return how many rows of the queue are of this task."""
        return {"queued": torch.tensor(self.queued)}

    def load_task_state(self, state: dict[str, Tensor]) -> None:
        """Take back how many."""
        self.queued = int(state["queued"])

    def before_update(self, info: StepInfo) -> None:
        """Hold the prototypes where they are in the first epochs."""
        if info.epoch < self.params.freeze_epochs:
            self.prototypes.weight.grad = None

    def after_update(self, info: StepInfo) -> None:
        """Bring prototypes back to length 1, and the batch into the queue."""
        self._normalise()
        if info.epoch >= self.params.queue_epoch:
            for number, queue in enumerate(self.queues):
                cast("Queue", queue).push(self.embedded[number])
            self.queued += len(self.embedded[0])

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy of assignments to the last task's prototypes."""
        prototypes = self.past_prototypes
        return distil_assignments(predicted, past, prototypes, self.params.temperature)
