"""The views that a run trains on, made from raw tiles."""

from collections.abc import Sequence

import torch
from torch import Tensor

from rscl_bench.objectives.base import Objective
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import Protocol
from rscl_bench.tiles.loader import TaskTiles, read_tiles
from rscl_bench.tiles.prefetch import BatchPart
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.crops import Crops, joined
from rscl_bench.views.view import PixelScaling, make_view, view_size, whole_view


class ViewMaker:
    """Crops, flips and normalises tiles into the views that an objective declares.

    Seed, task, step and purpose decide every random draw, so that the views of a step do not depend
    on earlier steps.
    """

    def __init__(
        self,
        objective: Objective,
        stores: Sequence[TileStore],
        scalings: Sequence[PixelScaling],
        protocol: Protocol,
        seed: int,
        device: torch.device,
    ):
        """Prepare the making of views.

        Args:
            objective: The objective, whose ``views`` are made.
            stores: Tiles of every task.
            scalings: Pixel scaling of every task.
            protocol: Image size, crop, flip and normalisation.
            seed: The run's seed.
            device: The device of the views.
        """
        self.scalings = [scaling.to(device) for scaling in scalings]
        self._objective, self._stores, self._protocol = objective, stores, protocol
        self._seed, self._device = seed, device

    def batch_views(
        self, batch: Sequence[BatchPart], task: int, step: int
    ) -> tuple[list[Tensor], list[Crops]]:
        """Return the views of a batch, each ``[B, C, H, W]``, and the crops of each view.

        Args:
            batch: Raw tiles on the device, grouped by the task that they are from.
            task: The current task.
            step: The current step.
        """
        groups = []
        for owner, _, tiles in batch:
            purpose = "views" if owner == task else f"views of task {owner}"
            groups.append(self._augment(tiles, owner, purpose, task, step))
        views = _joined([[view for view, _ in group] for group in groups])
        crops = [joined([crops for _, crops in view]) for view in zip(*groups, strict=True)]
        return views, crops

    def views_of(
        self, tiles: Sequence[TaskTiles], purpose: str, task: int, step: int
    ) -> list[Tensor]:
        """Return fresh views of stored tiles, each ``[B, C, H, W]``.

        Args:
            tiles: Pairs of a task's number and indices into its tiles ``[n]``.
            purpose: Key of the randomness.
            task: The current task.
            step: The current step.
        """
        groups = []
        for owner, indices in tiles:
            group = self._augment(
                self._read(owner, indices), owner, f"{purpose} of task {owner}", task, step
            )
            groups.append([view for view, _ in group])
        return _joined(groups)

    def whole_views_of(self, tiles: Sequence[TaskTiles]) -> Tensor:
        """Return stored tiles as probes see them, resized and unflipped: ``[B, C, H, W]``."""
        size = self._protocol.image_size
        return torch.cat(
            [
                whole_view(self._read(owner, indices), size, self.scalings[owner])
                for owner, indices in tiles
            ]
        )

    def sample(self, count: int, task: int) -> list[Tensor]:
        """Return views of up to ``count`` random tiles of a task, as before its first step."""
        generator = torch_generator("cpu", self._seed, "sample tiles", task)
        chosen = torch.randperm(len(self._stores[task]), generator=generator)[:count]
        return self.views_of([(task, chosen)], "sample", task, step=0)

    def _read(self, owner: int, indices: Tensor) -> Tensor:
        return read_tiles(self._stores[owner], indices.numpy()).to(self._device)

    def _augment(
        self, tiles: Tensor, owner: int, purpose: str, task: int, step: int
    ) -> list[tuple[Tensor, Crops]]:
        key = (self._seed, purpose, task, step)
        generator = torch_generator(self._device, *key)
        # The choice of operations is drawn on the CPU, where it needs no wait for the device.
        host = generator if self._device.type == "cpu" else torch_generator("cpu", *key)
        image_size, multiple = self._protocol.image_size, self._objective.encoder.multiple
        return [
            make_view(
                tiles,
                view,
                view_size(view, image_size, multiple),
                image_size,
                self._protocol.views,
                self.scalings[owner],
                generator,
                host,
            )
            for view in self._objective.views
        ]


def _joined(groups: Sequence[list[Tensor]]) -> list[Tensor]:
    """Join the views of several groups of tiles into the views of one batch."""
    return [torch.cat(views) for views in zip(*groups, strict=True)]
