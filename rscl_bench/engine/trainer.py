"""The training template: Avalanche's loop and hooks, for objectives without labels."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from rscl_bench.avalanche_api import (
    BaseSGDPlugin,
    BaseSGDTemplate,
    BatchObservation,
    DatasetExperience,
    SGDUpdate,
    no_evaluation,
)
from rscl_bench.engine.checkpointing.state import (
    Snapshot,
    load_optimiser,
    optimiser_tensors,
    strip_prefix,
    with_prefix,
)
from rscl_bench.errors import TrainingError
from rscl_bench.models.optimiser import learning_rate, weight_decay_groups
from rscl_bench.objectives.base import Objective, ObjectiveOutput, StepInfo
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import Protocol
from rscl_bench.strategies.base import Strategy
from rscl_bench.tiles.loader import TaskTiles, TileLoader, read_tiles
from rscl_bench.tiles.prefetch import Prefetcher
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.crops import Crops, joined
from rscl_bench.views.view import PixelScaling, make_view, view_size, whole_view

#: Called after every step with (task, step, steps of the task, loss on the device).
StepListener = Callable[[int, int, int, Tensor], None]


class SelfSupervisedTrainer(BatchObservation, SGDUpdate, BaseSGDTemplate):  # type: ignore[misc]
    """Trains an objective on a stream of unlabelled tiles, strategies acting at Avalanche's hooks.

    A step: raw tiles from the map, to the device, crop and flip, strategies' ``before_forward``,
    objective, strategies' ``before_backward``, update. Optimiser and schedule start anew in every
    task; weights carry over.

    Attributes:
        task: Number of the current task, from 0.
        step: Number of the current step within the task, from 0.
        views: The current views, each ``[B, C, H, W]`` float32.
        mb_output: What the objective gave for them.
        tile_counts: Tiles of every task.
        steps_taken: Updates of every ended task.
        train_seconds: Time of every ended task's steps and of what strategies did before and after
            them, with the device synchronised.
        waited_seconds: Time of every ended task's training in which it waited for tiles.
        final_loss: Mean loss of every ended task's last epoch, strategies' terms included; None
            for a task without steps.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        stores: Sequence[TileStore],
        archives: Sequence[PixelScaling],
        strategies: Sequence[Strategy],
        protocol: Protocol,
        seed: int,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
        plugins: Sequence[BaseSGDPlugin] = (),
        on_step: StepListener | None = None,
    ):
        """Prepare training.

        Args:
            objective: What is trained.
            stores: Tiles of every task.
            archives: What the views of every task depend on besides its tiles.
            strategies: In the order in which they act.
            protocol: Batch, epochs, optimiser, views.
            seed: The run's seed.
            device: Where training happens.
            autocast: Makes the context of forward passes.
            plugins: More Avalanche plugins, called after the strategies.
            on_step: Told of every step.
        """
        self.protocol = protocol
        self.seed = seed
        self.stores = stores
        self.tile_counts = [len(store) for store in stores]
        self.strategies = list(strategies)
        self.archives = [archive.to(device) for archive in archives]
        self.autocast = autocast
        self.on_step = on_step
        self.task = -1
        self.step = 0
        self._interrupted: Snapshot | None = None
        self.views: list[Tensor] = []
        self._crops: list[Crops] = []
        self.steps_taken: list[int] = []
        self.train_seconds: list[float] = []
        self.waited_seconds: list[float] = []
        self.final_loss: list[float | None] = []
        super().__init__(
            model=objective,
            optimizer=torch.optim.AdamW(objective.parameters()),  # replaced in every task
            train_mb_size=protocol.training.batch_size,
            train_epochs=protocol.training.epochs,
            device=device,
            plugins=[*self.strategies, *plugins],
            # Avalanche's metrics log absent values as 0; ours come from probes.
            evaluator=no_evaluation(),
        )

    # What Avalanche's loop calls, in its order.

    def _before_training_exp(self, **kwargs: Any) -> None:
        self.task = self.experience.current_experience
        self.step = 0
        self._synchronise()
        self._started = time.perf_counter()
        self.model.before_task(self.task, self._sample)
        super()._before_training_exp(**kwargs)

    def make_train_dataloader(self, **_: Any) -> None:
        """Read whole batches from the tile store of the current task."""
        self.train_on([(self.task, torch.arange(self.tile_counts[self.task]))])

    def check_model_and_optimizer(self, **_: Any) -> None:
        """Start a new optimiser over what is trained: objective and strategies' heads."""
        training = self.protocol.training
        self.optimizer = torch.optim.AdamW(
            weight_decay_groups(self.trained_modules(), training.weight_decay),
            lr=training.learning_rate,
            betas=training.betas,
            fused=True,
        )

    def trained_modules(self) -> list[nn.Module]:
        """Return the objective and the strategies' heads."""
        heads = [strategy.head for strategy in self.strategies if strategy.head is not None]
        return [self.model, *heads]

    def _train_exp(self, experience: DatasetExperience, *args: Any, **kwargs: Any) -> None:
        self._non_finite = torch.full((), -1, device=self.device)
        self._epoch_loss = torch.zeros((), device=self.device)
        self._epochs = 0
        if self._interrupted is not None:
            self._go_on(self._interrupted)
        super()._train_exp(experience, *args, **kwargs)
        self._refuse_non_finite()
        self.steps_taken.append(self.step)
        self.waited_seconds.append(self.dataloader.waited)
        batches = len(self.dataloader)
        self.final_loss.append(float(self._epoch_loss) / batches if batches else None)

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.model.after_task(self.task)
        super()._after_training_exp(**kwargs)
        self._synchronise()
        self.train_seconds.append(time.perf_counter() - self._started)

    def training_epoch(self, **kwargs: Any) -> None:
        """Run one epoch of Avalanche's loop, or what is left of it."""
        first = self._epochs * len(self.dataloader)
        self._epochs += 1
        if self.step >= first + len(self.dataloader):  # done before an interruption
            return
        if self.step == first:
            self._epoch_loss.zero_()
        super().training_epoch(**kwargs)

    def _unpack_minibatch(self) -> None:
        parts = []
        for task, _, tiles in self.mbatch:
            purpose = "views" if task == self.task else f"views of task {task}"
            parts.append(self._augment(tiles, task, purpose))
        self.views = _joined([[view for view, _ in part] for part in parts])
        groups = zip(*parts, strict=True)
        self._crops = [joined([crops for _, crops in group]) for group in groups]
        self.model.before_step(self._moment())
        rate = learning_rate(
            self.step,
            self.steps,
            round(self.protocol.training.warmup_epochs * len(self.dataloader)),
            self.protocol.training.learning_rate,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def forward(self) -> ObjectiveOutput:
        """Run the objective on the current views."""
        with self.autocast():
            output: ObjectiveOutput = self.model(self.views, self._generator("objective"))
        return output

    def criterion(self) -> Tensor:
        """Return the objective's loss; strategies add theirs in ``before_backward``."""
        loss: Tensor = self.mb_output.loss
        return loss

    def _before_backward(self, **kwargs: Any) -> None:
        with self.autocast():
            super()._before_backward(**kwargs)
        loss = self.loss.detach().squeeze()
        self._epoch_loss += loss
        bad = ~torch.isfinite(loss) & (self._non_finite < 0)
        self._non_finite = torch.where(bad, self.step, self._non_finite)
        # Reading the flag makes a GPU wait, so there only now and then; the step is kept.
        if self.device.type == "cpu" or self.step % 50 == 0:
            self._refuse_non_finite()

    def _before_update(self, **kwargs: Any) -> None:
        super()._before_update(**kwargs)
        self.model.before_update(self._moment())

    def _after_update(self, **kwargs: Any) -> None:
        self.model.after_update(self._moment())
        super()._after_update(**kwargs)

    def _after_training_iteration(self, **kwargs: Any) -> None:
        super()._after_training_iteration(**kwargs)
        self.step += 1
        if self.on_step is not None:
            self.on_step(self.task, self.step, self.steps, self.loss.detach())

    # Checkpoints.

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave a block out of the training time."""
        self._synchronise()
        since = time.perf_counter()
        yield
        self._started += time.perf_counter() - since

    def snapshot(self) -> Snapshot:
        """Return all that the rest of the stream depends on, after a step or between tasks.

        Tensors are those that are trained, not copies.

        Raises:
            TrainingError: If the loss of an earlier step was not finite.
        """
        within = len(self.steps_taken) == self.task
        tensors = with_prefix("objective", self.model.state_dict())
        for number, strategy in enumerate(self.strategies):
            tensors |= with_prefix(f"strategy{number}", strategy.state_dict())
            if strategy.head is not None:
                tensors |= with_prefix(f"head{number}", strategy.head.state_dict())
        facts = {
            "task": self.task if within else self.task + 1,
            "step": self.step if within else 0,
            "steps_taken": self.steps_taken,
            "train_seconds": self.train_seconds,
            "waited_seconds": self.waited_seconds,
            "final_loss": self.final_loss,
        }
        if within:
            self._refuse_non_finite()  # what is kept is to be good
            self._synchronise()
            facts["seconds"] = time.perf_counter() - self._started
            facts["waited"] = self.dataloader.waited
            tensors |= with_prefix("task", self.model.task_state())
            tensors |= with_prefix("optimiser", optimiser_tensors(self.optimizer))
            tensors["epoch_loss"] = self._epoch_loss
        return Snapshot(tensors, facts)

    def restore(self, snapshot: Snapshot) -> None:
        """Go on from a snapshot: the next task to train is the one that it names."""
        facts = snapshot.metadata
        self.task = facts["task"] - 1
        self.steps_taken = list(facts["steps_taken"])
        self.train_seconds = list(facts["train_seconds"])
        self.waited_seconds = list(facts["waited_seconds"])
        self.final_loss = list(facts["final_loss"])
        self._load(snapshot.tensors)
        self._interrupted = snapshot if facts["step"] else None

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(strip_prefix(tensors, "objective"))
        for number, strategy in enumerate(self.strategies):
            strategy.load_state_dict(strip_prefix(tensors, f"strategy{number}"))
            if strategy.head is not None:
                strategy.head.load_state_dict(strip_prefix(tensors, f"head{number}"))

    def _go_on(self, snapshot: Snapshot) -> None:
        """Take back the state within a task, over what its start has just made."""
        self._interrupted = None
        tensors, facts = snapshot
        self._load(tensors)
        self.model.load_task_state(strip_prefix(tensors, "task"))
        load_optimiser(self.optimizer, strip_prefix(tensors, "optimiser"))
        self._epoch_loss.copy_(tensors["epoch_loss"])
        self.step = facts["step"]
        self.dataloader.skip(self.step)
        self.dataloader.waited = facts["waited"]
        self._started = time.perf_counter() - facts["seconds"]

    # What strategies call; see `rscl_bench.strategies.base.Trainer`.

    @property
    def steps(self) -> int:
        """Steps of the current task."""
        steps: int = len(self.dataloader) * self.train_epochs
        return steps

    def train_on(self, tiles: Sequence[TaskTiles]) -> None:
        """Train the current task on these tiles and no others."""
        batch_size = self.protocol.training.batch_size
        loader = TileLoader(self.stores, tiles, batch_size, self.seed, self.task)
        self.dataloader = Prefetcher(loader, self.device)

    def views_of(self, tiles: Sequence[TaskTiles], purpose: str) -> list[Tensor]:
        """Return fresh views of stored tiles."""
        parts = [
            self._augment(self._read(task, indices), task, f"{purpose} of task {task}")
            for task, indices in tiles
        ]
        return _joined([[view for view, _ in part] for part in parts])

    def whole_views_of(self, tiles: Sequence[TaskTiles]) -> Tensor:
        """Return stored tiles as probes see them: whole, resized, unflipped."""
        size, archives = self.protocol.image_size, self.archives
        return torch.cat([whole_view(self._read(t, i), size, archives[t]) for t, i in tiles])

    # Ours.

    def _read(self, task: int, indices: Tensor) -> Tensor:
        return read_tiles(self.stores[task], indices.numpy()).to(self.device)

    def _augment(self, tiles: Tensor, task: int, purpose: str) -> list[tuple[Tensor, Crops]]:
        generator = self._generator(purpose)
        # What decides on operations is drawn where that needs no waiting for the device.
        host = generator if self.device.type == "cpu" else self._generator(purpose, "cpu")
        image_size, multiple = self.protocol.image_size, self.model.encoder.multiple
        return [
            make_view(
                tiles,
                view,
                view_size(view, image_size, multiple),
                self.protocol.views,
                self.archives[task],
                generator,
                host,
            )
            for view in self.model.views
        ]

    def _sample(self, count: int) -> list[Tensor]:
        """Return views of some of the current task's tiles, for the objective to look at."""
        generator = torch_generator("cpu", self.seed, "sample tiles", self.task)
        chosen = torch.randperm(self.tile_counts[self.task], generator=generator)[:count]
        return self.views_of([(self.task, chosen)], "sample")

    def _moment(self) -> StepInfo:
        tiles = [(part.task, part.indices) for part in self.mbatch]
        return StepInfo(self.task, self.step, self.steps, self.train_epochs, tiles, self._crops)

    def _generator(self, purpose: str, device: str | None = None) -> torch.Generator:
        return torch_generator(device or self.device, self.seed, purpose, self.task, self.step)

    def _refuse_non_finite(self) -> None:
        step = int(self._non_finite)
        if step >= 0:
            raise TrainingError(
                f"The loss became NaN or infinite at step {step} of task {self.task + 1}; lower "
                "training.learning_rate or run with --set precision=fp32."
            )

    def _synchronise(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _joined(parts: Sequence[list[Tensor]]) -> list[Tensor]:
    """Return the views of several groups of tiles as those of one batch."""
    return [torch.cat(views) for views in zip(*parts, strict=True)]
