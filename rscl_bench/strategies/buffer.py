"""A memory of past tasks: equal numbers of tiles per task, kept as indices into tile stores."""

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


class TileBuffer:
    """Avalanche's balanced buffer, with keyed randomness and indices instead of images.

    Every past task has ``size // tasks`` tiles; the remainder goes to the first tasks, one tile
    each. The tiles are drawn uniformly when the task ends, and thinned uniformly when later tasks
    end.
    """

    def __init__(self, size: int, seed: int):
        self._policy = ExperienceBalancedBuffer(size)
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
        self._policy = ExperienceBalancedBuffer(self._policy.max_size)
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

    def state_dict(self) -> dict[str, Tensor]:
        """Return the state of the buffer."""
        return self.buffer.state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore the state of the buffer."""
        self.buffer.load_state_dict(state)
