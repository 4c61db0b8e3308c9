"""What every self-supervised objective offers to the engine, to strategies and to probes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder, Pool
from rscl_bench.spec import Spec
from rscl_bench.tiles.loader import TaskTiles
from rscl_bench.views.crops import Crops
from rscl_bench.views.view import View

#: Gives views of so many tiles of a task, or of all if there are fewer: one ``[n, C, H, W]`` for
#: each of the objective's views. Tiles and views are the same in every call.
TileSampler = Callable[[int], Sequence[Tensor]]


@dataclass(frozen=True)
class ObjectiveOutput:
    """What one step of an objective gives.

    Attributes:
        loss: The self-supervised loss, a scalar.
        encoded: What the encoder returned for each view, for ``encoder.pool``.
        projected: What the projector made of the pooled features of each view, ``[B, P]``; empty
            where there is no projector.
    """

    loss: Tensor
    encoded: tuple[Tensor, ...]
    projected: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class StepInfo:
    """Where in the stream a step is, for schedules and memories of an objective.

    Attributes:
        task: Number of the task, from 0.
        step: Number of the step within the task, from 0.
        steps: Steps of the task.
        epochs: Epochs of the task.
        tiles: The tiles whose views are the step's, in their order. A strategy may put more images
            behind them.
        crops: Which part of its tile each image of each view is.
    """

    task: int
    step: int
    steps: int
    epochs: int
    tiles: Sequence[TaskTiles]
    crops: Sequence[Crops]

    @property
    def progress(self) -> float:
        """Share of the task's steps that are done, from 0 to just below 1."""
        return self.step / self.steps

    @property
    def epoch(self) -> int:
        """Number of the epoch within the task, from 0."""
        return self.step * self.epochs // self.steps

    @property
    def begins_epoch(self) -> bool:
        """Whether this is the first step of an epoch."""
        return self.step % (self.steps // self.epochs) == 0


class Objective(nn.Module, ABC):
    """A self-supervised loss with its encoder and heads.

    A subclass takes ``(params, encoder)`` and assigns ``self.encoder``; whatever else it trains it
    assigns as sub-modules. What must live through the stream (moving averages, queues, centres,
    prototypes) is a parameter without gradient or a buffer, so that it is saved with the rest.

    Attributes:
        Params: What a recipe may set.
        views: How each view of an image is made; by default one, cropped as the protocol says.
        encoder: What is probed and kept.
        projector: From pooled features to what the loss compares; identity where there is none.
        projected_dim: Width P of projections.
        feature: How features are pooled for the projector.
        negatives: Whether the loss tells images from each other.
        momentum: Whether a moving average of the weights makes the targets.
        same_parameters: Whether every task trains the same parameters, from where the last one left
            them.
        per_image_loss: Whether the loss is a mean over images, each on its own.
        stateless_loss: Whether computing the loss between steps, in evaluation mode, changes
            nothing that training will see.
    """

    Params: ClassVar[type[Spec]]
    views: Sequence[View] = (View(),)
    encoder: Encoder
    projector: nn.Module
    projected_dim: int
    feature: Pool = "patches"
    negatives: ClassVar[bool] = False
    momentum: ClassVar[bool] = False
    same_parameters: ClassVar[bool] = True
    per_image_loss: ClassVar[bool] = False
    stateless_loss: ClassVar[bool] = False

    def __init__(self, params: Spec, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.projector = nn.Identity()
        self.projected_dim = encoder.feature_dim

    @abstractmethod
    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return loss and encoded views.

        Args:
            views: One tensor for each of ``self.views``, ``[B, C, H, W]``, normalised.
            generator: The step's source of randomness, on the device of the views.

        Returns:
            The output; its loss is finite for finite views.
        """

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Compare predicted and past projections with this objective's own kind of loss.

        For CaSSLe; a squared error unless a subclass says otherwise.

        Args:
            predicted: One ``[B, P]`` float32 per view.
            past: The same of the past encoder and projector, without gradient.
        """
        pairs = zip(predicted, past, strict=True)
        return torch.stack([F.mse_loss(new, old) for new, old in pairs]).mean()

    def task_state(self) -> dict[str, Tensor]:
        """Return what a task builds up besides parameters and buffers, and the next starts without.

        It is part of checkpoints within a task; ``state_dict`` is of all.
        """
        return {}

    def load_task_state(self, state: dict[str, Tensor]) -> None:
        """Take back what ``task_state`` returned, after ``before_task``."""

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Prepare for a task, before its optimiser is made.

        Args:
            task: Number of the task, from 0.
            sample: Gives a look at the task's tiles.
        """

    def before_step(self, info: StepInfo) -> None:
        """Prepare for a step: schedules, and which tiles come."""

    def before_update(self, info: StepInfo) -> None:
        """Change gradients, those of strategies included."""

    def after_update(self, info: StepInfo) -> None:
        """Follow the new weights, with a moving average for instance."""

    def after_task(self, task: int) -> None:
        """Conclude a task, before strategies do."""
