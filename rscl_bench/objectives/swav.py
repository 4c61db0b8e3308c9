"""SwAV (Caron et al. 2020, "Unsupervised Learning of Visual Features by Contrasting ...")."""

from collections.abc import Sequence
from typing import Annotated, cast

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from rscl_bench.errors import SpecError
from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import Divisor, StepInfo, TileSampler
from rscl_bench.objectives.embedding import JointEmbedding, in_fp32, mlp, over_views
from rscl_bench.objectives.prototypes import (
    LARGE_VIEWS,
    MultiCropParams,
    TrainedPrototypes,
    assignment_entropy,
)
from rscl_bench.objectives.queue import Queue
from rscl_bench.objectives.sinkhorn import sinkhorn
from rscl_bench.spec import Positive, Several, Training

Count = Annotated[int, Field(ge=0)]


class SwAVParams(MultiCropParams):
    """Prototypes, codes and queue, with views and projector.

    Attributes:
        prototypes: Number K of prototypes.
        epsilon: ε, the smoothness of the codes.
        sinkhorn_iterations: Sinkhorn iterations for the codes.
        freeze_epochs: Number of epochs at the start of a task in which the prototypes are frozen.
        queue: Number of embeddings of past batches that help to balance the codes; 0 for none.
        queue_epoch: Epoch of a task, from 0, in which the queue starts to fill. The queue is used
            once it is full.
    """

    prototypes: Several = 3000
    epsilon: Annotated[float, Field(ge=1e-3), Divisor()] = 0.05
    sinkhorn_iterations: Positive = 3
    freeze_epochs: Count = 1
    queue: Count = 3840
    queue_epoch: Count = 15


class SwAV(JointEmbedding):
    """Predicts the balanced code of each large view from every other view (Eq. 1 to 5).

    A code is an assignment to prototypes, balanced over the batch.

    Attributes:
        past_prototypes: Prototypes at the end of the last task, ``[K, P]``, each row of length 1.
    """

    Params = SwAVParams
    least_batch = 2
    joint_batch = True
    past_prototypes: Tensor

    def __init__(self, params: SwAVParams, encoder: Encoder):
        projector = mlp(encoder.feature_dim, params.hidden_dim, params.output_dim)
        super().__init__(params, encoder, params.views, projector)
        self.params = params
        # Not lightly's prototypes, which have a bias.
        self.prototypes = nn.Linear(params.output_dim, params.prototypes, bias=False)
        self._normalise()
        self.register_buffer("past_prototypes", self.prototypes.weight.detach().clone())
        queues = LARGE_VIEWS if params.queue else 0
        self.queues = nn.ModuleList(Queue(params.queue, params.output_dim) for _ in range(queues))
        self.queued = 0
        self.embedded: list[Tensor] = []

    def check_training(self, training: Training) -> None:
        """Refuse a queue that would never start to fill.

        Raises:
            SpecError: If no epoch of a task is ``queue_epoch``.
        """
        if self.params.queue and self.params.queue_epoch >= training.epochs:
            raise SpecError(
                f"The queue of 'swav' starts in epoch {self.params.queue_epoch}, counted from 0, "
                f"but a task has {training.epochs} epochs; set objective.queue = 0, or lower "
                "objective.queue_epoch."
            )

    def compare(self, projected: Sequence[Tensor], views: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy between codes and predictions, averaged over pairs of views."""
        return in_fp32(self._swapped_prediction, *projected)

    def _swapped_prediction(self, *projected: Tensor) -> Tensor:
        embedded = [F.normalize(view, dim=1) for view in projected]
        self.embedded = [view.detach() for view in embedded[:LARGE_VIEWS]]
        scores = [self.prototypes(view) for view in embedded]
        queued = None
        if self.queues and self.queued >= self.params.queue:
            queued = [self.prototypes(queue.rows) for queue in self.queues]
        logs = [F.log_softmax(view / self.params.temperature, dim=1) for view in scores]
        terms = []
        for view in range(LARGE_VIEWS):
            rows = scores[view] if queued is None else torch.cat([scores[view], queued[view]])
            codes = self._codes(rows)[: len(scores[view])]
            terms += [
                -(codes * log).sum(dim=1).mean() for other, log in enumerate(logs) if other != view
            ]
        return torch.stack(terms).mean()

    def _codes(self, scores: Tensor) -> Tensor:
        """Return the codes ``[n, K]`` of scores ``[n, K]``, without gradient."""
        return sinkhorn(scores, self.params.sinkhorn_iterations, self.params.epsilon)

    @torch.no_grad()
    def _normalise(self) -> None:
        self.prototypes.weight.copy_(F.normalize(self.prototypes.weight, dim=1))

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Store the prototypes for `distil`, and empty the queue."""
        self.past_prototypes.copy_(self.prototypes.weight.detach())
        self.queued = 0

    def task_state(self) -> dict[str, Tensor]:
        """Return the number of embeddings that this task has pushed onto the queue."""
        return {"queued": torch.tensor(self.queued)}

    def load_task_state(self, state: dict[str, Tensor]) -> None:
        """Restore the state returned by `task_state`."""
        self.queued = int(state["queued"])

    def before_update(self, info: StepInfo) -> None:
        """Freeze the prototypes in the first epochs of a task."""
        if info.epoch < self.params.freeze_epochs:
            self.prototypes.weight.grad = None

    def after_update(self, info: StepInfo) -> None:
        """Normalise the prototypes to length 1, and push the batch onto the queue."""
        self._normalise()
        if info.epoch >= self.params.queue_epoch:
            for queue, embedded in zip(self.queues, self.embedded, strict=False):
                cast("Queue", queue).push(embedded)
            self.queued += len(self.embedded[0])

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Return the cross-entropy between past and predicted assignments, averaged over views.

        The last task's prototypes assign the past projections. The prototypes of `distil_head`
        have assigned the predictions, as in the code of CaSSLe.
        """

        def entropy(scores: Tensor, old: Tensor) -> Tensor:
            return assignment_entropy(scores, old, self.past_prototypes, self.params.temperature)

        return over_views(entropy, predicted, past)

    def distil_head(self) -> TrainedPrototypes:
        """Return new prototypes for CaSSLe's predictions, as many as SwAV has."""
        return TrainedPrototypes(self.params.output_dim, self.params.prototypes)
