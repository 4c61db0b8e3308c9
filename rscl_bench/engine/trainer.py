"""The trainer: Avalanche's loop and hooks, for objectives without labels."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rscl_bench.avalanche_api import (
    BaseSGDPlugin,
    BaseSGDTemplate,
    BatchObservation,
    DatasetExperience,
    no_evaluation,
)
from rscl_bench.engine.checkpointing.state import (
    Snapshot,
    has_state,
    load_optimiser,
    loading,
    optimiser_tensors,
    plugin_tensors,
    strip_prefix,
    with_prefix,
)
from rscl_bench.engine.clock import TaskClock
from rscl_bench.engine.view_maker import ViewMaker
from rscl_bench.errors import TrainingError
from rscl_bench.models.band_weights import growing
from rscl_bench.models.encoder import Encoder
from rscl_bench.models.optimiser import (
    constant_rate,
    learning_rate,
    warmup_steps,
    weight_decay_groups,
)
from rscl_bench.objectives.base import Objective, StepInfo, divisors
from rscl_bench.randomness import torch_generator
from rscl_bench.spec import ProbedEncoder, Protocol
from rscl_bench.strategies.base import Strategy
from rscl_bench.tiles.loader import TaskTiles, TileLoader
from rscl_bench.tiles.prefetch import Prefetcher
from rscl_bench.tiles.store import TileStore
from rscl_bench.views.view import PixelScaling

#: Called after every step with (task, step, steps of the task, loss on the device).
StepListener = Callable[[int, int, int, Tensor], None]


class SelfSupervisedTrainer(BatchObservation, BaseSGDTemplate):  # type: ignore[misc]
    """Trains an objective on a stream of unlabelled tiles; strategies act at Avalanche's hooks.

    `training_step` shows one step, and `_train_exp` the epochs of one task. Every task has a new
    optimiser and a new schedule; weights carry over.

    Attributes:
        task: Number of the current task, from 0.
        step: Number of the current step within the task, from 0.
        views: The current views, each ``[B, C, H, W]`` float32.
        mb_output: The objective's output for the current views.
        tile_counts: Number of tiles of every task.
        steps_taken: Number of updates of every ended task.
        final_loss: Mean loss of every ended task's last epoch, with the terms of strategies; None
            for a task without steps.
        task_clock: Training time of every task.
    """

    def __init__(
        self,
        *,
        objective: Objective,
        stores: Sequence[TileStore],
        scalings: Sequence[PixelScaling],
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
            objective: The objective to train.
            stores: Tiles of every task.
            scalings: Pixel scaling of every task.
            strategies: Strategies, in the order in which they act.
            protocol: Batch, epochs, optimiser, views.
            seed: The run's seed.
            device: The device of training.
            autocast: Makes the context of forward passes.
            plugins: More Avalanche plugins, called after the strategies.
            on_step: Listener, called after every step.
        """
        self.protocol = protocol
        self.seed = seed
        self.stores = stores
        self.tile_counts = [len(store) for store in stores]
        self.strategies, self.extra_plugins = list(strategies), list(plugins)
        self.view_maker = ViewMaker(objective, stores, scalings, protocol, seed, device)
        self.task_clock = TaskClock(device)
        self.autocast = autocast
        self.on_step = on_step
        self.task = -1
        self.step = 0
        self._stop_training = False
        self._interrupted: Snapshot | None = None
        self._branch: dict[str, Tensor] = {}  # weights before an annealing, for the next task
        self.views: list[Tensor] = []
        self.steps_taken: list[int] = []
        self.final_loss: list[float | None] = []
        super().__init__(
            model=objective,
            optimizer=torch.optim.AdamW(objective.parameters()),  # replaced in every task
            train_mb_size=protocol.training.batch_size,
            train_epochs=protocol.training.epochs,
            device=device,
            plugins=[*self.strategies, *self.extra_plugins],
            # Avalanche's metrics log absent values as 0; the metrics here come from probes.
            evaluator=no_evaluation(),
        )

    # A task, in the order in which Avalanche calls these methods.

    def _before_training_exp(self, **kwargs: Any) -> None:
        self.task = self.experience.current_experience
        self.step = 0
        self.task_clock.start()
        self._return_to_branch()
        self.model.before_task(self.task, partial(self.view_maker.sample, task=self.task))
        super()._before_training_exp(**kwargs)

    def make_train_dataloader(self, **_: Any) -> None:
        """Read whole batches from the tile store of the current task."""
        self.train_on([(self.task, torch.arange(self.tile_counts[self.task]))])

    def check_model_and_optimizer(self, **_: Any) -> None:
        """Make a new optimiser over the trained modules."""
        training = self.protocol.training
        self.optimizer = torch.optim.AdamW(
            weight_decay_groups(self.trained_modules(), training.weight_decay),
            lr=training.learning_rate,
            betas=training.betas,
            fused=True,
        )

    @property
    def probed_encoder(self) -> Encoder:
        """The encoder that probes evaluate and that a run keeps."""
        averaged = [s.averaged for s in self.strategies if s.averaged is not None]
        return averaged[0] if averaged else self.model.probed_encoder

    @property
    def probed(self) -> ProbedEncoder:
        """Name of the encoder that probes evaluate."""
        averaged = any(strategy.averaged is not None for strategy in self.strategies)
        return "average" if averaged else self.model.probed

    def trained_modules(self) -> list[nn.Module]:
        """Return the objective and the heads of strategies."""
        heads = [strategy.head for strategy in self.strategies if strategy.head is not None]
        return [self.model, *heads]

    def _train_exp(self, experience: DatasetExperience, *args: Any, **kwargs: Any) -> None:
        self._first_non_finite = torch.full((), -1, device=self.device)
        self._epoch_loss = torch.zeros((), device=self.device)
        if self._interrupted is not None:
            self._resume(self._interrupted)
        batches, epoch_steps = len(self.dataloader), 0
        for epoch in range(self.train_epochs):
            first = epoch * batches
            if self.step > first + batches:  # the epoch had ended before an interruption
                continue
            if self.step <= first:  # the epoch had not begun before an interruption
                self._before_training_epoch(**kwargs)
                if self._stop_training:  # a plugin asks for an early stop
                    self._stop_training = False
                    break
                self._epoch_loss.zero_()
            if self.step < first + batches:
                self.training_epoch(**kwargs)
            epoch_steps = self.step - first
            self._after_training_epoch(**kwargs)
        self._refuse_non_finite()
        self.steps_taken.append(self.step)
        self.final_loss.append(float(self._epoch_loss) / epoch_steps if epoch_steps else None)

    def training_epoch(self, **kwargs: Any) -> None:
        """Take the remaining steps of one epoch."""
        for batch in self.dataloader:
            if self._stop_training:
                break
            self.mbatch = batch
            self.training_step(**kwargs)
            self.step += 1
            if self.on_step is not None:
                self.on_step(self.task, self.step, self.steps, self.loss.detach())

    def training_step(self, **kwargs: Any) -> None:
        """Take one step on the current batch.

        The methods ``_before_...`` and ``_after_...`` call the hooks of strategies and plugins.
        """
        self.views, crops = self.view_maker.batch_views(self.mbatch, self.task, self.step)
        tiles = [(part.task, part.indices) for part in self.mbatch]
        info = StepInfo(self.task, self.step, self.steps, self.train_epochs, tiles, crops)
        self.model.before_step(info)
        self._branch_off()
        self._set_learning_rate()
        self._before_training_iteration(**kwargs)
        self.optimizer.zero_grad()
        self.loss = self._make_empty_loss()

        self._before_forward(**kwargs)  # strategies may replace the views
        with self.autocast():
            self.mb_output = self.model(self.views, self._generator("objective"))
        self._after_forward(**kwargs)

        self.loss += self.mb_output.loss
        with self.autocast():
            self._before_backward(**kwargs)  # strategies may add to the loss
        self._watch_loss()
        self.loss.backward()
        if self.step == 0:
            self._refuse_constant()
        self._after_backward(**kwargs)  # strategies may change the gradients

        self._before_update(**kwargs)
        self.model.before_update(info)
        self._clip_gradients()
        self.optimizer.step()
        self.model.after_update(info)
        self._after_update(**kwargs)
        self._after_training_iteration(**kwargs)

    def _after_training_exp(self, **kwargs: Any) -> None:
        self.model.after_task(self.task)
        super()._after_training_exp(**kwargs)
        self.task_clock.stop(self.dataloader.waited)

    # The parts of a step.

    def _set_learning_rate(self) -> None:
        training = self.protocol.training
        warmup = warmup_steps(training.warmup_epochs, len(self.dataloader), self.steps)
        if training.schedule == "constant":
            warmup = 0 if self.task else warmup
            rate = constant_rate(
                self.step, self.steps, warmup, training.learning_rate, self._anneal_steps()
            )
        else:
            rate = learning_rate(self.step, self.steps, warmup, training.learning_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _anneal_steps(self) -> int:
        """Return the number of the task's last steps in which a constant rate falls to 0."""
        return round((self.protocol.training.anneal or 0.0) * self.steps)

    def _branch_off(self) -> None:
        """Keep the weights before an annealing.

        A strategy that trains on the whole stream at once has no next task.
        """
        whole_stream = any(strategy.whole_stream for strategy in self.strategies)
        annealed = self._anneal_steps()
        if annealed and self.step == self.steps - annealed and not whole_stream:
            self._branch = {name: v.detach().clone() for name, v in self._weights().items()}

    def _return_to_branch(self) -> None:
        """Take the weights before the last task was annealed, which was for its probes alone."""
        if self._branch:
            with growing():
                self._load_weights(self._branch)
            self._branch = {}

    def _weights(self) -> dict[str, Tensor]:
        """Return the tensors of the objective and of the heads of strategies."""
        tensors = with_prefix("objective", self.model.state_dict())
        for number, strategy in enumerate(self.strategies):
            if strategy.head is not None:
                tensors |= with_prefix(f"head{number}", strategy.head.state_dict())
        return tensors

    def _load_weights(self, tensors: Mapping[str, Tensor]) -> None:
        self.model.load_state_dict(strip_prefix(tensors, "objective"))
        for number, strategy in enumerate(self.strategies):
            if strategy.head is not None:
                strategy.head.load_state_dict(strip_prefix(tensors, f"head{number}"))

    def _clip_gradients(self) -> None:
        """Scale the gradient down to the largest norm, where the training has one."""
        clip_norm = self.protocol.training.clip_norm
        if clip_norm is not None:
            groups = self.optimizer.param_groups
            nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], clip_norm)

    def _generator(self, purpose: str) -> torch.Generator:
        return torch_generator(self.device, self.seed, purpose, self.task, self.step)

    def _watch_loss(self) -> None:
        """Add the loss to the epoch's sum, and note the first step whose loss is not finite."""
        loss = self.loss.detach().squeeze()
        self._epoch_loss += loss
        bad = ~torch.isfinite(loss) & (self._first_non_finite < 0)
        self._first_non_finite = torch.where(bad, self.step, self._first_non_finite)
        # Reading the note makes a GPU wait, so a GPU reads it only every 50 steps.
        if self.device.type == "cpu" or self.step % 50 == 0:
            self._refuse_non_finite()

    def _refuse_non_finite(self) -> None:
        step = int(self._first_non_finite)
        if step >= 0:
            small = [f"objective.{name}" for name in divisors(self.model.Params)]
            raised = f"raise {' or '.join(small)}, " if small else ""
            raise TrainingError(
                f"The loss became NaN or infinite at step {step} of task {self.task + 1}; lower "
                f"training.learning_rate, {raised}or run with --set precision=fp32."
            )

    def _refuse_constant(self) -> None:
        """Refuse a loss from which the encoder learns nothing, at the first step of a task.

        Raises:
            TrainingError: If no gradient reaches the encoder.
        """
        gradients = [p.grad for p in self.model.encoder.parameters() if p.grad is not None]
        if not any(bool(gradient.any()) for gradient in gradients):
            raise TrainingError(
                f"The loss of task {self.task + 1} is constant: no gradient reaches the encoder at "
                "its first step; change the parameters of the objective."
            )

    # Checkpoints.

    def snapshot(self) -> Snapshot:
        """Return the state that the rest of the stream depends on, after a step or between tasks.

        The tensors are the live ones, not copies.

        Raises:
            TrainingError: If the loss of an earlier step was not finite.
        """
        within = len(self.steps_taken) == self.task
        tensors = self._weights()
        for number, strategy in enumerate(self.strategies):
            tensors |= with_prefix(f"strategy{number}", strategy.state_dict())
        tensors |= with_prefix("branch", self._branch)
        for number, plugin in enumerate(self.extra_plugins):
            tensors |= with_prefix(f"plugin{number}", plugin_tensors(plugin))
        metadata: dict[str, Any] = {
            "task": self.task if within else self.task + 1,
            "step": self.step if within else 0,
            "steps_taken": self.steps_taken,
            "train_seconds": self.task_clock.train_seconds,
            "waited_seconds": self.task_clock.waited_seconds,
            "final_loss": self.final_loss,
        }
        if within:
            self._refuse_non_finite()  # a checkpoint never holds NaN
            metadata["seconds"] = self.task_clock.seconds()
            metadata["waited"] = self.dataloader.waited
            metadata["stopping"] = self._stop_training
            tensors |= with_prefix("task", self.model.task_state())
            tensors |= with_prefix("optimiser", optimiser_tensors(self.optimizer))
            tensors["epoch_loss"] = self._epoch_loss
        return Snapshot(tensors, metadata)

    def restore(self, snapshot: Snapshot) -> None:
        """Load a snapshot; the next task to train is the task that the snapshot names."""
        metadata = snapshot.metadata
        self.task = metadata["task"] - 1
        self.steps_taken = list(metadata["steps_taken"])
        self.final_loss = list(metadata["final_loss"])
        self.task_clock.train_seconds = list(metadata["train_seconds"])
        self.task_clock.waited_seconds = list(metadata["waited_seconds"])
        self._load(snapshot.tensors)
        self._interrupted = snapshot if metadata["step"] else None

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        self._branch = strip_prefix(tensors, "branch")
        with growing():  # a stream that goes on may have new bands
            self._load_weights(tensors)
            for number, strategy in enumerate(self.strategies):
                strategy.load_state_dict(strip_prefix(tensors, f"strategy{number}"))
        for number, plugin in enumerate(self.extra_plugins):
            if has_state(plugin):
                plugin.load_state_dict(strip_prefix(tensors, f"plugin{number}"))

    def _resume(self, snapshot: Snapshot) -> None:
        """Load the state within a task over the state that the hooks at its start have made."""
        self._interrupted = None
        with loading():
            self._load_task(snapshot)

    def _load_task(self, snapshot: Snapshot) -> None:
        tensors, metadata = snapshot
        self._load(tensors)
        self.model.load_task_state(strip_prefix(tensors, "task"))
        load_optimiser(self.optimizer, strip_prefix(tensors, "optimiser"))
        self._epoch_loss.copy_(tensors["epoch_loss"])
        self.step = metadata["step"]
        self._stop_training = metadata.get("stopping", False)  # older checkpoints lack it
        self.dataloader.skip(self.step)
        self.dataloader.waited = metadata["waited"]
        self.task_clock.start(metadata["seconds"])

    # The interface for strategies; see `rscl_bench.strategies.base.Trainer`.

    @property
    def steps(self) -> int:
        """Number of steps of the current task."""
        steps: int = len(self.dataloader) * self.train_epochs
        return steps

    def train_on(self, tiles: Sequence[TaskTiles]) -> None:
        """Train the current task on these tiles and no others."""
        batch_size = self.protocol.training.batch_size
        loader = TileLoader(self.stores, tiles, batch_size, self.seed, self.task)
        self.dataloader = Prefetcher(loader, self.device)

    def views_of(self, tiles: Sequence[TaskTiles], purpose: str) -> list[Tensor]:
        """Return fresh views of stored tiles, each ``[B, C, H, W]``."""
        return self.view_maker.views_of(tiles, purpose, self.task, self.step)

    def whole_views_of(self, tiles: Sequence[TaskTiles]) -> Tensor:
        """Return stored tiles as probes see them, whole and unflipped: ``[B, C, H, W]``."""
        return self.view_maker.whole_views_of(tiles)
