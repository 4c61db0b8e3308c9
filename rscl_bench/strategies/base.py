"""The interface of continual strategies: Avalanche plugins with parameters, a head and state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from rscl_bench.avalanche_api import BaseSGDPlugin, DatasetExperience
from rscl_bench.models.encoder import Encoder
from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.spec import Protocol as ProtocolSpec
from rscl_bench.spec import Spec
from rscl_bench.tiles.loader import TaskTiles


class Trainer(Protocol):
    """The part of the trainer that a strategy may use in its hooks.

    Attributes:
        experience: The current Avalanche experience.
        task: Index of the current task, from 0.
        step: Index of the current step within the task, from 0.
        tile_counts: Number of tiles of every task of the stream.
        views: The current views, each ``[B, C, H, W]`` float32; a strategy may replace them in
            ``before_forward``.
        mb_output: The objective's output for the current views, from ``after_forward`` on.
        loss: The loss, a scalar; a strategy adds its terms in ``before_backward``.
    """

    experience: DatasetExperience
    task: int
    step: int
    tile_counts: Sequence[int]
    views: list[Tensor]
    mb_output: ObjectiveOutput
    loss: Tensor

    def train_on(self, tiles: Sequence[TaskTiles]) -> None:
        """Train the current task on these tiles and no others.

        A strategy calls this method before the first step of the task.

        Args:
            tiles: Pairs of a task's index and indices into the tiles of that task, ``[n]`` int64.
        """
        ...

    def views_of(self, tiles: Sequence[TaskTiles], purpose: str) -> list[Tensor]:
        """Return fresh views of stored tiles, each ``[B, C, H, W]``.

        Args:
            tiles: Pairs of a task's index and indices into the tiles of that task, ``[n]`` int64.
            purpose: Key of the random draws; two strategies with different keys get different
                crops.
        """
        ...

    def whole_views_of(self, tiles: Sequence[TaskTiles]) -> Tensor:
        """Return stored tiles as probes see them, whole and unflipped: ``[B, C, H, W]``."""
        ...


@dataclass(frozen=True)
class Context:
    """The run that a strategy is built for.

    Attributes:
        objective: The objective that is trained.
        protocol: The run's protocol.
        seed: The run's seed.
        device: The device of training.
    """

    objective: Objective
    protocol: ProtocolSpec
    seed: int
    device: torch.device


class Strategy(BaseSGDPlugin, supports_distributed=True):  # type: ignore[misc,call-arg]
    """Base of all strategies.

    A subclass takes ``(params, context)`` and overrides Avalanche's hooks, such as
    ``before_training_exp``, ``before_forward``, ``before_backward`` and ``after_training_exp``. The
    first argument of a hook is a `Trainer`. Frozen copies, such as teachers, are attributes other
    than ``head``.

    Attributes:
        Params: The parameters that a recipe may set.
        needs: Attributes that must be true of the objective, whatever the parameters. The engine
            checks them before training.
        plain_first_task: Whether the first task equals plain training of the objective, to the last
            bit.
        head: The module that is trained along with the objective, or None.
        least_batch: Least number of images of a batch that the strategy can act on. The engine
            refuses a smaller batch before training, and a batch of one image where ``head`` has
            batch normalisation.
        averaged: An average of the encoder, which probes evaluate and a run keeps in place of the
            trained encoder; None for the objective's own choice. The strategy makes it when it is
            built, and changes it in place. A recipe has one such strategy at most.
        sets_weights: Whether the strategy changes weights at the end of a task. It needs a stream
            whose next task starts from there, which annealing on a branch does not.
        whole_stream: Whether training needs the tiles of all tasks from the first task on. A run
            with such a strategy cannot be extended by a later task.
    """

    Params: ClassVar[type[Spec]]
    whole_stream: ClassVar[bool] = False
    sets_weights: ClassVar[bool] = False
    needs: ClassVar[tuple[str, ...]] = ()
    plain_first_task: ClassVar[bool] = True
    head: nn.Module | None = None
    averaged: Encoder | None = None
    least_batch: int = 1

    def __init__(self, params: Spec, context: Context):
        super().__init__()
        self.context = context

    @classmethod
    def needs_with(cls, params: Spec) -> tuple[str, ...]:
        """Return the attributes that the objective must have with these parameters."""
        return cls.needs

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state on which the rest of the stream depends, without that of ``head``.

        The state has two parts. One outlives a task, such as a memory or a past encoder. The other
        lives within a task, such as a running sum over steps. The engine calls this method between
        tasks and between the steps of a task.
        """
        return {}

    def kept_tiles(self) -> Sequence[TaskTiles]:
        """Return the tiles of ended tasks that the rest of the stream may read.

        A run that is extended after its archives are gone has these tiles and no others of earlier
        tasks. A strategy that reads tiles of earlier tasks, as by ``views_of``, overrides this.

        Returns:
            Pairs of a task's index and indices into the tiles of that task, ``[n]`` int64.
        """
        return ()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state that ``state_dict`` returned.

        Within a task, the engine calls this method after ``before_training_exp``.

        Raises:
            ValueError: If there is state, which a subclass without this method cannot restore.
        """
        if state:
            raise ValueError(f"{type(self).__name__} cannot restore the state {sorted(state)}.")
