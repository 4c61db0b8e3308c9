"""Memory of past tasks: equal counts per task, kept as indices into the tile stores."""

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
from rscl_bench.tiles.loader import TaskTiles


class TileBuffer:
    """Avalanche's balanced buffer, with keyed randomness and indices instead of images.

    Every past task has ``size // tasks`` tiles (the first ones one more where that leaves a rest),
    drawn uniformly when the task ends and thinned uniformly when later ones end.
    """

    def __init__(self, size: int, seed: int):
        self._policy = ExperienceBalancedBuffer(size)
        self._seed = seed
        self._indices: list[Tensor] = []

    def __len__(self) -> int:
        """Return the number of tiles kept."""
        return sum(len(indices) for indices in self._indices)

    @property
    def counts(self) -> list[int]:
        """Tiles kept of each past task."""
        return [len(indices) for indices in self._indices]

    @property
    def tiles(self) -> list[TaskTiles]:
        """What is kept: the number and the indices of each past task."""
        return list(enumerate(self._indices))

    def add(self, experience: DatasetExperience) -> None:
        """Take in a task that ended.

        Args:
            experience: Its experience; its dataset carries ``tile_index``.
        """
        with seeded(self._seed, "buffer", experience.current_experience):
            self._policy.post_adapt(None, experience)
        self._indices = [
            torch.tensor(list(data.tile_index), dtype=torch.long)
            for data in self._policy.buffer_datasets
        ]

    def draw(self, count: int, *purpose: int | str) -> list[TaskTiles]:
        """Draw tiles uniformly over the buffer, without repeats as long as they last.

        Args:
            count: How many.
            *purpose: Key of the draw, besides the seed.

        Returns:
            Pairs of a task's number and indices into its tiles ``[n]`` int64; the n sum to
            ``count``.
        """
        generator = torch_generator("cpu", self._seed, "draw", *purpose)
        rounds = -(-count // len(self))
        order = torch.cat([torch.randperm(len(self), generator=generator) for _ in range(rounds)])
        chosen = order[:count]
        drawn, start = [], 0
        for task, indices in enumerate(self._indices):
            mine = chosen[(chosen >= start) & (chosen < start + len(indices))] - start
            if len(mine):
                drawn.append((task, indices[mine]))
            start += len(indices)
        return drawn

    def state_dict(self) -> dict[str, Tensor]:
        """Return the indices kept of each past task, by name."""
        return {f"task{task}": indices for task, indices in enumerate(self._indices)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take back what ``state_dict`` returned, in place of what the buffer holds."""
        self._indices = [state[f"task{task}"].cpu() for task in range(len(state))]
        self._policy = ExperienceBalancedBuffer(self._policy.max_size)
        self._policy._num_exps = len(self._indices)
        for task, indices in enumerate(self._indices):
            group = ReservoirSamplingBuffer(len(indices))
            # Thinning takes the first ones, so the order is kept and the weights are of no account.
            group.buffer = AvalancheDataset(
                [TensorDataset(indices)],
                data_attributes=[DataAttribute(indices.tolist(), "tile_index")],
            )
            group._buffer_weights = torch.zeros(len(indices))
            self._policy.buffer_groups[task] = group
