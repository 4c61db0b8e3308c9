"""A memory of past tasks: equal numbers of tiles per task, kept as indices into tile stores."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from rscl_bench.avalanche_api import (
    AvalancheDataset,
    DataAttribute,
    DatasetExperience,
    ExperienceBalancedBuffer,
    ReservoirSamplingBuffer,
)
from rscl_bench.randomness import seeded, torch_generator
from rscl_bench.spec import Spec
from rscl_bench.strategies.base import Context, Strategy, Trainer
from rscl_bench.tiles.loader import TaskTiles


def balanced_counts(size: int, available: Sequence[int]) -> list[int]:
    """Divide a buffer's room equally among tasks.

    Every task gets ``size // tasks`` places; the remainder goes to the first tasks, one place each.
    A task with fewer tiles leaves its places to the other tasks, in the same way. A buffer with
    fewer places than tasks has one place for each of the latest tasks.

    Args:
        size: Number of places.
        available: Number of tiles that each task can put in, at least one of the last task.

    Returns:
        The number of tiles of each task, at most ``available``.
    """
    tasks = len(available)
    if size < tasks:
        return [0] * (tasks - size) + [1] * size
    counts, open_tasks, room = list(available), list(range(tasks)), size
    while open_tasks:
        share, rest = divmod(room, len(open_tasks))
        places = {task: share + (order < rest) for order, task in enumerate(open_tasks)}
        small = [task for task in open_tasks if available[task] < places[task]]
        if not small:
            for task in open_tasks:
                counts[task] = places[task]
            break
        open_tasks = [task for task in open_tasks if task not in small]
        room -= sum(available[task] for task in small)
    return counts


class _FilledBuffer(ExperienceBalancedBuffer):  # type: ignore[misc]
    """Avalanche's balanced buffer, whose groups have the lengths of `balanced_counts`."""

    def post_adapt(self, agent: Any, exp: DatasetExperience) -> None:
        """Add the tiles of a task, and thin those of earlier tasks."""
        held = [len(tiles) for tiles in self.buffer_datasets]
        self._available = [*held, len(exp.dataset)]
        super().post_adapt(agent, exp)

    def get_group_lengths(self, num_groups: int) -> list[int]:
        """Return the number of tiles of each task."""
        return balanced_counts(self.max_size, self._available)


class TileBuffer:
    """A balanced buffer, with keyed randomness and indices instead of images.

    Every past task has an equal number of tiles, see `balanced_counts`. The tiles are drawn
    uniformly when the task ends, and thinned uniformly when later tasks end. A task that was
    thinned gets no tile back.
    """

    def __init__(self, size: int, seed: int):
        self._policy = _FilledBuffer(size)
        self._seed = seed
        self._indices: list[Tensor] = []

    def __len__(self) -> int:
        """Return the number of tiles in the buffer."""
        return sum(len(indices) for indices in self._indices)

    @property
    def counts(self) -> list[int]:
        """Number of tiles of each past task."""
        return [len(indices) for indices in self._indices]

    @property
    def tiles(self) -> list[TaskTiles]:
        """The index of each past task, and the indices of its tiles ``[n]`` int64."""
        return list(enumerate(self._indices))

    def add(self, experience: DatasetExperience) -> None:
        """Add tiles of a task that has ended.

        Args:
            experience: The task's experience, whose dataset has the attribute ``tile_index``.
        """
        with seeded(self._seed, "buffer", experience.current_experience):
            self._policy.post_adapt(None, experience)
        self._indices = [
            torch.tensor(list(data.tile_index), dtype=torch.long)
            for data in self._policy.buffer_datasets
        ]

    def draw(self, count: int, *purpose: int | str) -> list[TaskTiles]:
        """Draw tiles uniformly from the buffer; no tile repeats before all tiles are drawn.

        Args:
            count: Number of tiles.
            *purpose: Key of the draw, next to the seed.

        Returns:
            Pairs of a task's index and indices into the tiles of that task, ``[n]`` int64. The
            numbers n sum to ``count``.
        """
        generator = torch_generator("cpu", self._seed, "draw", *purpose)
        rounds = -(-count // len(self))
        order = torch.cat([torch.randperm(len(self), generator=generator) for _ in range(rounds)])
        chosen = order[:count]
        drawn, start = [], 0
        for task, indices in enumerate(self._indices):
            of_task = chosen[(chosen >= start) & (chosen < start + len(indices))] - start
            if len(of_task):
                drawn.append((task, indices[of_task]))
            start += len(indices)
        return drawn

    def state_dict(self) -> dict[str, Tensor]:
        """Return the indices of each past task's tiles, ``task<index>``."""
        return {f"task{task}": indices for task, indices in enumerate(self._indices)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Replace the content of the buffer by the state that ``state_dict`` returned."""
        self._indices = [state[f"task{task}"].cpu() for task in range(len(state))]
        self._policy = _FilledBuffer(self._policy.max_size)
        self._policy._num_exps = len(self._indices)
        for task, indices in enumerate(self._indices):
            group = ReservoirSamplingBuffer(len(indices))
            # Avalanche keeps the first tiles of a group when the group shrinks: the order matters,
            # and the weights do not.
            group.buffer = AvalancheDataset(
                [TensorDataset(indices)],
                data_attributes=[DataAttribute(indices.tolist(), "tile_index")],
            )
            group._buffer_weights = torch.zeros(len(indices))
            self._policy.buffer_groups[task] = group


class BufferedStrategy(Strategy):
    """A strategy with a memory of past tasks, of the protocol's ``buffer_size`` tiles.

    Attributes:
        buffer: The memory; a task enters when the task ends.
    """

    def __init__(self, params: Spec, context: Context):
        super().__init__(params, context)
        self.buffer = TileBuffer(context.protocol.buffer_size, context.seed)

    def after_training_exp(self, trainer: Trainer, **_: Any) -> None:
        """Add the ended task to the memory."""
        self.buffer.add(trainer.experience)

    def kept_tiles(self) -> Sequence[TaskTiles]:
        """Return the tiles in the memory."""
        return self.buffer.tiles

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the buffer."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state of the buffer."""
        self.buffer.load_state_dict(state)
