"""What a continual strategy is: an Avalanche plugin with parameters, heads and state."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from rscl_bench.avalanche_api import BaseSGDPlugin, DatasetExperience
from rscl_bench.objectives.base import Objective, ObjectiveOutput
from rscl_bench.spec import Protocol as ProtocolSpec
from rscl_bench.spec import Spec
from rscl_bench.tiles.loader import TaskTiles


class Trainer(Protocol):
    """What a strategy may use of the training template at each hook.

    Attributes:
        experience: The current Avalanche experience.
        task: Number of the current task, from 0.
        step: Number of the current step within the task, from 0.
        tile_counts: Tiles of every task of the stream.
        views: The current views, each ``[B, C, H, W]``; a strategy may replace them in
            ``before_forward``.
        mb_output: What the objective gave; there from ``after_forward`` on.
        loss: The loss so far; a strategy adds to it in ``before_backward``.
    """

    experience: DatasetExperience
    task: int
    step: int
    tile_counts: Sequence[int]
    views: list[Tensor]
    mb_output: ObjectiveOutput
    loss: Tensor

    def train_on(self, tiles: Sequence[TaskTiles]) -> None:
        """Train the current task on these tiles and no others; to call before its first step."""
        ...

    def views_of(self, tiles: Sequence[TaskTiles], purpose: str) -> list[Tensor]:
        """Return fresh views of stored tiles, each ``[B, C, H, W]``.

        Args:
            tiles: Pairs of a task's number and indices into its tiles ``[n]``.
            purpose: Key of the randomness, so that two strategies do not share crops.
        """
        ...

    def whole_views_of(self, tiles: Sequence[TaskTiles]) -> Tensor:
        """Return stored tiles as probes see them, whole and unflipped: ``[B, C, H, W]``."""
        ...


@dataclass(frozen=True)
class Context:
    """What a strategy is built with.

    Attributes:
        objective: The objective that it acts on.
        protocol: The run's protocol.
        seed: The run's seed.
        device: Where training happens.
    """

    objective: Objective
    protocol: ProtocolSpec
    seed: int
    device: torch.device


class Strategy(BaseSGDPlugin, supports_distributed=True):  # type: ignore[misc,call-arg]
    """Base of all strategies.

    A subclass takes ``(params, context)`` and overrides Avalanche's hooks (``before_training_exp``,
    ``before_forward``, ``before_backward``, ``after_training_exp`` ...), whose first argument is a
    `Trainer`. Teachers and other frozen copies are kept outside ``head``.

    Attributes:
        Params: What a recipe may set.
        needs: Attributes of the objective that must be true, checked before training, whatever the
            parameters.
        plain_first_task: Whether the first task is plain training of the objective, to the last
            bit.
        head: Modules that are trained along with the objective, or None.
    """

    Params: ClassVar[type[Spec]]
    needs: ClassVar[tuple[str, ...]] = ()
    plain_first_task: ClassVar[bool] = True
    head: nn.Module | None = None

    def __init__(self, params: Spec, context: Context):
        super().__init__()
        self.context = context

    @classmethod
    def needs_with(cls, params: Spec) -> tuple[str, ...]:
        """Return ``needs``, and what these parameters need besides."""
        return cls.needs

    def state_dict(self) -> dict[str, Tensor]:
        """Return what must outlive a task, apart from ``head``, as tensors."""
        return {}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} keeps no state but was given {sorted(state)}")

    def describe(self) -> dict[str, Any]:
        """Return facts for the run record, such as how full a buffer is."""
        return {}
