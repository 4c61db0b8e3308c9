"""Operations that strategies add to a training step, counted by rehearsing the second task."""

import copy
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rscl_bench.encoder_bands import sensor_bands
from rscl_bench.engine.build import build_strategies
from rscl_bench.engine.flops import Flops, OperationCounter, without_others
from rscl_bench.engine.stream import make_stream
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.engine.view_maker import ViewMaker
from rscl_bench.objectives.base import Objective
from rscl_bench.spec import RunSpec
from rscl_bench.tiles.loader import TaskTiles
from rscl_bench.tiles.prefetch import BatchPart, Prefetcher
from rscl_bench.views.crops import Crops, whole_tiles
from rscl_bench.views.view import view_size

if TYPE_CHECKING:
    from rscl_bench.tiles.store import TileStore

_LEAST, _MOST = 4, 16  # images of the rehearsed batch
_BUDGET = 50e9  # operations of a rehearsed step of the objective, between these two limits
_SAMPLE = 16  # most images that an objective may sample before a task; not part of a step
_CPU = torch.device("cpu")


def count_strategies(spec: RunSpec, objective: Objective, alone: Flops) -> Flops:
    """Return the operations per image that strategies add to a step of the second task.

    The trainer takes one step of the second task on copies, on the CPU in fp32, on random images:
    once with the method's strategies and once without. The difference of the two counts, divided by
    the images of the batch, is returned. Passes of teachers, replayed images and distillation heads
    count. Elementwise operations do not, such as those of penalties and of mixing. Work at the
    start or end of a task does not, such as the Fisher information.

    The rehearsed batch is the protocol's, but has at most 16 images, and 4 of a large model. A
    share of the batch, such as DER's, is therefore rounded to a sixteenth or to a quarter.

    Args:
        spec: The run.
        objective: The run's objective; it is left unchanged.
        alone: Operations per image of the objective, from `count_flops`.

    Returns:
        The operations; 0 for a method without strategies. A strategy that takes images out of the
        batch has a negative number.
    """
    if not spec.method.strategies:
        return Flops(0, 0)
    affordable = max(_LEAST, min(_MOST, int(_BUDGET / max(1, sum(alone)))))
    images = min(spec.protocol.training.batch_size, affordable)
    rehearsed = _rehearsed(spec, images)
    with torch.random.fork_rng(devices=[]):
        without, total = (
            _Rehearsal(spec=rehearsed, objective=objective, strategic=on).second_task()
            for on in (False, True)
        )
    return Flops(
        round((total.with_gradient - without.with_gradient) / images),
        round((total.without_gradient - without.without_gradient) / images),
    )


def _rehearsed(spec: RunSpec, images: int) -> RunSpec:
    values = {"batch_size": images, "warmup_epochs": 0}
    training = spec.protocol.training.model_copy(update=values)
    protocol = spec.protocol.model_copy(update={"training": training})
    # One seed for all, because the records of all seeds of a method have one count.
    return spec.model_copy(update={"protocol": protocol, "seed": 0})


class _Tiles:
    """Stands for the tiles of a task; their pixels are never read."""

    def __init__(self, count: int):
        self._count = count

    def __len__(self) -> int:
        return self._count


class _Batches:
    """One batch for an epoch, in place of the loader."""

    waited = 0.0

    def __init__(self, batch: list[BatchPart]):
        self._batch = batch

    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[list[BatchPart]]:
        yield self._batch


class _RandomViews(ViewMaker):
    """Makes random images in place of views of stored tiles.

    Attributes:
        places: Channels that the images of each task have; empty if all images have all channels.
    """

    places: Sequence[tuple[int, ...]] = ()

    def batch_views(
        self, batch: Sequence[BatchPart], task: int, step: int
    ) -> tuple[list[Tensor], list[Crops]]:
        """Return random views of a batch, and crops that take whole tiles."""
        tiles = [(part.task, part.indices) for part in batch]
        views, side = self.views_of(tiles, "views", task, step), self._protocol.image_size
        return views, [whole_tiles(len(view), side, side, _CPU) for view in views]

    def views_of(
        self, tiles: Sequence[TaskTiles], purpose: str, task: int, step: int
    ) -> list[Tensor]:
        """Return random views, each ``[B, C, H, W]``."""
        side, multiple = self._protocol.image_size, self._objective.encoder.multiple
        sides = [view_size(view, side, multiple) for view in self._objective.views]
        return [self._random(tiles, side) for side in sides]

    def whole_views_of(self, tiles: Sequence[TaskTiles]) -> Tensor:
        """Return random images of full size, ``[B, C, H, W]``."""
        return self._random(tiles, self._protocol.image_size)

    def sample(self, count: int, task: int) -> list[Tensor]:
        """Return random views of some images."""
        return self.views_of([(task, torch.arange(min(count, _SAMPLE)))], "sample", task, 0)

    def _random(self, tiles: Sequence[TaskTiles], side: int) -> Tensor:
        channels = self._objective.encoder.channels
        if not self.places:
            count = sum(len(indices) for _, indices in tiles)
            return torch.randn(count, channels, side, side)
        images = [torch.randn(len(indices), channels, side, side) for _, indices in tiles]
        owners = [self.places[owner] for owner, _ in tiles]
        return torch.cat([without_others(*pair) for pair in zip(images, owners, strict=True)])


def _places(spec: RunSpec, objective: Objective) -> list[tuple[int, ...]]:
    """Return the channels of the images of two tasks, the first and the second of the stream."""
    bands, tasks = objective.encoder.bands, spec.scenario.tasks
    if bands is None:
        return []
    return [bands.places(sensor_bands(task)) for task in (tasks[0], tasks[min(1, len(tasks) - 1)])]


class _Rehearsal(SelfSupervisedTrainer):
    """Takes no step in the first task, and one counted step in the second."""

    def __init__(self, *, spec: RunSpec, objective: Objective, strategic: bool):
        model = copy.deepcopy(objective).cpu().train()
        super().__init__(
            objective=model,
            stores=[cast("TileStore", _Tiles(spec.protocol.training.batch_size))] * 2,
            scalings=[],
            strategies=build_strategies(spec, model, _CPU) if strategic else [],
            protocol=spec.protocol,
            seed=spec.seed,
            device=_CPU,
        )
        self.view_maker = _RandomViews(model, self.stores, [], spec.protocol, spec.seed, _CPU)
        self.view_maker.places = _places(spec, model)
        self.counter = OperationCounter()

    def second_task(self) -> Flops:
        """Return the operations of one step of the second task, for all images together."""
        # Unfused attention, because torch's registry lacks formulas of some fused kernels.
        with sdpa_kernel(SDPBackend.MATH):
            for task, experience in enumerate(make_stream(self.stores).streams["train"]):
                self.train_epochs = task  # none, then one
                self.train(experience, eval_streams=[])
        return Flops(self.counter.with_gradient, self.counter.without_gradient)

    def train_on(self, tiles: Sequence[TaskTiles]) -> None:
        """Train on one batch of the task, even where a strategy trains on none."""
        indices = torch.arange(self.protocol.training.batch_size)
        pixels = torch.empty(0)  # never read
        batch = [BatchPart(self.task, indices, pixels)]
        self.dataloader = cast("Prefetcher", _Batches(batch))

    def training_step(self, **kwargs: Any) -> None:
        """Take a step and count its operations."""
        with self.counter:
            super().training_step(**kwargs)

    def _before_backward(self, **kwargs: Any) -> None:
        super()._before_backward(**kwargs)
        self.counter.backward = True

    def _after_backward(self, **kwargs: Any) -> None:
        self.counter.backward = False
        super()._after_backward(**kwargs)

    def _watch_loss(self) -> None:
        """Ignore the loss of random images, which need not be finite."""

    def _after_training_exp(self, **kwargs: Any) -> None:
        if self.task == 0:  # nothing is counted after the second task
            super()._after_training_exp(**kwargs)
