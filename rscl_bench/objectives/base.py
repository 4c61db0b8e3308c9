"""The interface that every self-supervised objective offers to engine, strategies and probes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rscl_bench.models.encoder import Encoder
from rscl_bench.spec import Pool, Probed, Spec, Training
from rscl_bench.tiles.loader import TaskTiles
from rscl_bench.views.crops import Crops
from rscl_bench.views.view import View

#: Returns views of up to ``count`` tiles of the task, one ``[n, C, H, W]`` per view of the
#: objective. Every call returns views of the same tiles with the same random draws.
TileSampler = Callable[[int], Sequence[Tensor]]


@dataclass(frozen=True)
class ObjectiveOutput:
    """The result of one forward pass of an objective.

    Attributes:
        loss: The self-supervised loss, a scalar.
        encoded: The encoder's output for each view that the encoder sees; ``encoder.pool`` reads
            it.
        projected: The projections of the pooled features of each of these views, ``[B, P]``;
            empty if the objective has no projector.
    """

    loss: Tensor
    encoded: tuple[Tensor, ...]
    projected: tuple[Tensor, ...] = ()


@dataclass(frozen=True)
class StepInfo:
    """The position of a step in the stream, for schedules and memories of an objective.

    Attributes:
        task: Index of the task, from 0.
        step: Index of the step within the task, from 0.
        steps: Number of steps of the task.
        epochs: Number of epochs of the task.
        tiles: The tiles of the step, in the order of the images. A strategy may append further
            images to the views.
        crops: For each view, the part of its tile that each image shows.
    """

    task: int
    step: int
    steps: int
    epochs: int
    tiles: Sequence[TaskTiles]
    crops: Sequence[Crops]

    @property
    def progress(self) -> float:
        """Share of the task's steps that are done, in [0, 1)."""
        return self.step / self.steps

    @property
    def epoch(self) -> int:
        """Index of the epoch within the task, from 0."""
        return self.step * self.epochs // self.steps

    @property
    def begins_epoch(self) -> bool:
        """Whether this is the first step of an epoch."""
        return self.step % (self.steps // self.epochs) == 0


class TeacherParams(Spec):
    """Parameter of every objective with a momentum teacher.

    Attributes:
        probed: The encoder that is probed and kept: the trained one ("student"), or its moving
            average ("teacher"), which the authors of DINO and iBOT evaluate.
    """

    probed: Probed = "student"


@dataclass(frozen=True)
class Divisor:
    """Marks a parameter that a loss divides by: a value near 0 may make the loss overflow."""


def divisors(params: type[Spec]) -> list[str]:
    """Return the names of the parameters that a loss divides by, in the order of the fields."""
    return [
        name
        for name, field in params.model_fields.items()
        if any(isinstance(mark, Divisor) for mark in field.metadata)
    ]


class Objective(nn.Module, ABC):
    """A self-supervised loss with its encoder and heads.

    A subclass takes ``(params, encoder)``, passes them to this constructor, and assigns every other
    trained module as a submodule. State that outlives a task (teachers, queues, centres,
    prototypes) is a parameter without gradient or a buffer, so that ``state_dict`` saves the state.

    Attributes:
        Params: The parameters that a recipe may set.
        views: How each view of an image is made. The default is one view with the protocol's crop.
        teacher_views: Number of the last views that a teacher alone sees. The output has neither
            features nor projections of them.
        encoder: The encoder that is trained, probed and kept.
        projector: Maps pooled features to projections; the identity if the objective has none.
        projected_dim: Width P of the projections.
        feature: How features are pooled for the projector.
        negatives: Whether the loss pushes different images apart.
        momentum: Whether a moving average of the weights makes the targets. The averaged encoder is
            then the submodule ``teacher``.
        whole_views: Whether the output has features of two whole views of full size.
        same_parameters: Whether every task trains the same parameters, starting from the weights
            at the end of the last task.
        per_image_loss: Whether the loss is a mean over images of terms that depend on one image
            each.
        stateless_loss: Whether an additional evaluation of the loss between two steps, in
            evaluation mode, leaves training unchanged.
        least_batch: Least number of images of a batch from which the loss can be learnt: 2 for a
            loss that compares the images of a batch. The engine refuses a smaller batch before
            training, and a batch of one image where there is batch normalisation.
        probed: Whether probes evaluate, and a run keeps, the trained encoder ("student") or the
            moving average ("teacher"). A parameter of this name sets the attribute; see
            `TeacherParams`.
    """

    Params: ClassVar[type[Spec]]
    views: Sequence[View] = (View(),)
    teacher_views: int = 0
    encoder: Encoder
    projector: nn.Module
    projected_dim: int
    feature: Pool = "patches"
    negatives: ClassVar[bool] = False
    momentum: ClassVar[bool] = False
    whole_views: ClassVar[bool] = False
    same_parameters: ClassVar[bool] = True
    per_image_loss: ClassVar[bool] = False
    stateless_loss: ClassVar[bool] = False
    least_batch: int = 1
    teacher: Encoder

    def __init__(self, params: Spec, encoder: Encoder):
        super().__init__()
        self.encoder = encoder
        self.probed: Probed = params.probed if isinstance(params, TeacherParams) else "student"
        self.projector = nn.Identity()
        self.projected_dim = encoder.feature_dim

    @property
    def probed_encoder(self) -> Encoder:
        """The encoder that probes evaluate and that a run keeps."""
        return self.teacher if self.probed == "teacher" else self.encoder

    def check_training(self, training: Training) -> None:
        """Refuse a training that the objective cannot learn from, before the first step.

        ``least_batch`` covers the batch size.

        Args:
            training: Epochs, batch size and optimiser of every task.

        Raises:
            SpecError: If the objective's parameters do not fit the training.
        """

    @abstractmethod
    def forward(self, views: Sequence[Tensor], generator: torch.Generator) -> ObjectiveOutput:
        """Return the loss of a batch, with the encoded and projected views.

        Args:
            views: One normalised tensor ``[B, C, H, W]`` for each element of ``self.views``.
            generator: The only source of randomness for the step, on the device of the views.

        Returns:
            The output. Its loss is finite for finite views.
        """

    def distil(self, predicted: Sequence[Tensor], past: Sequence[Tensor]) -> Tensor:
        """Compare current with past projections, with this objective's own kind of loss (CaSSLe).

        The strategy ``cassle`` calls this method without autocast and passes the views of full size
        only. The default is the mean squared error.

        Args:
            predicted: CaSSLe's predictions of the past projections, one ``[B, P]`` float32 per
                view; with a `distil_head`, the output of that module for each view.
            past: Projections by the encoder and the projector at the end of the last task, one
                ``[B, P]`` float32 per view, without gradient.

        Returns:
            A scalar.
        """
        pairs = zip(predicted, past, strict=True)
        return torch.stack([F.mse_loss(new, old) for new, old in pairs]).mean()

    def distil_head(self) -> nn.Module | None:
        """Return a new module to train on CaSSLe's predictions ``[B, P]``, before `distil`.

        The strategy ``cassle`` calls this method once, with torch's global generator seeded. The
        default is None: `distil` compares the predictions themselves.
        """
        return None

    def task_state(self) -> dict[str, Tensor]:
        """Return the state that lives only within a task and is neither parameter nor buffer.

        Checkpoints within a task hold this state, next to ``state_dict``.
        """
        return {}

    def load_task_state(self, state: dict[str, Tensor]) -> None:
        """Restore the state returned by `task_state`. The engine calls ``before_task`` first."""

    def before_task(self, task: int, sample: TileSampler) -> None:
        """Prepare for a task. The engine creates the optimiser afterwards.

        Args:
            task: Index of the task, from 0.
            sample: Returns views of some tiles of the task.
        """

    def before_step(self, info: StepInfo) -> None:
        """Prepare for a step, for instance by setting the values of schedules."""

    def before_update(self, info: StepInfo) -> None:
        """Change the gradients, which include those of strategies."""

    def after_update(self, info: StepInfo) -> None:
        """React to the new weights, for instance by updating a momentum teacher."""

    def after_task(self, task: int) -> None:
        """Conclude a task. Strategies conclude the task afterwards."""
