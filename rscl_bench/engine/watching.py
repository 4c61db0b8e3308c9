"""What a user watches while a run trains: loggers, and an online probe every few epochs."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rscl_bench.engine.losses import Losses
from rscl_bench.engine.online import OnlineProbe, online_line
from rscl_bench.engine.prepare import PreparedRun
from rscl_bench.engine.probing import Prober
from rscl_bench.engine.run_log import RunLog
from rscl_bench.engine.trainer import SelfSupervisedTrainer
from rscl_bench.progress import Reporter


@dataclass(frozen=True)
class Watching:
    """What is watched; nothing of it is part of a run's identity.

    Attributes:
        logs: Names of loggers, see `rscl_bench.engine.run_log.LOGS`.
        epochs: Epochs between two online probings; None for no online probe.
    """

    logs: tuple[str, ...] = ()
    epochs: int | None = None


class Watch:
    """Logs losses, speed and scores of one run, and probes its encoder online."""

    def __init__(
        self,
        watching: Watching,
        prepared: PreparedRun,
        folder: Path,
        reporter: Reporter,
        fresh: bool,
    ):
        """Open the loggers, and choose the tiles of the online probe.

        Args:
            watching: What is watched.
            prepared: The run.
            folder: Folder of the run.
            reporter: Prints the scores of the online probe.
            fresh: Whether the run starts from its beginning.

        Raises:
            SpecError: If a logger is not installed, or no probe has a validation split.
        """
        spec, identity = prepared.spec, prepared.identity
        self._tasks = [task.name for task in spec.scenario.tasks]
        self._batch = spec.protocol.training.batch_size
        self._epochs_of_task = spec.protocol.training.epochs
        self._say, self._every = reporter.message, watching.epochs
        self._online = (
            None
            if watching.epochs is None
            else OnlineProbe(prepared.probes, spec.protocol, prepared.device)
        )
        settings: dict[str, Any] = {
            "scenario": identity.scenario.name,
            "protocol": identity.protocol_name,
            "method": spec.method.name,
            "seed": identity.seed,
            "run": identity.run_id(),
        }
        name = f"{spec.scenario.name}-{spec.method.name}-seed{identity.seed}"
        self.log = RunLog(watching.logs, folder, name, settings, fresh)
        self._speed: tuple[int, int, float] | None = None  # task, step, seconds at the last window

    def step(
        self, trainer: SelfSupervisedTrainer, losses: Losses, window: bool, step: int, steps: int
    ) -> None:
        """Log and probe after a step.

        Args:
            trainer: The trainer after the step.
            losses: The losses, this step included.
            window: Whether the step ends a window of the losses.
            step: Number of steps of the task so far.
            steps: Number of steps of the task.
        """
        at = sum(trainer.steps_taken) + step
        if window and self.log:
            self.log.add(at, self._training(trainer, losses, step))
        epoch, rest = divmod(step * self._epochs_of_task, steps)
        probing = self._online is not None and not rest and epoch % (self._every or 1) == 0
        with trainer.task_clock.paused() if probing or self.log else nullcontext():
            if probing:
                self._probe(trainer, epoch, at)
            self.log.flush_sometimes()

    def task(self, trainer: SelfSupervisedTrainer, prober: Prober) -> None:
        """Log the scores of the test splits after the last ended task."""
        if self.log and prober.rows:
            values = {
                f"probe/{name}/test_{kind}_map": value
                for name, score in prober.scores()[-1].items()
                for kind in ("micro", "macro")
                if (value := getattr(score.test, kind)) is not None
            }
            self.log.add(sum(trainer.steps_taken), {**values, "task": len(prober.rows) - 1})
        self.log.flush()

    def _training(
        self, trainer: SelfSupervisedTrainer, losses: Losses, step: int
    ) -> dict[str, float]:
        own = losses.tasks[trainer.task]
        _, _, rate, loss, objective, strategies = own.windows(len(own.rates) - 1)[0]
        seconds = trainer.task_clock.seconds()
        values = {
            "task": trainer.task + 1,
            "loss": loss,
            "loss/objective": objective,
            "loss/strategies": strategies,
            "learning_rate": rate,
        }
        before, self._speed = self._speed, (trainer.task, step, seconds)
        if before is not None and before[0] == trainer.task and seconds > before[2]:
            images = (step - before[1]) * self._batch
            values["images_per_second"] = images / (seconds - before[2])
        return values

    def _probe(self, trainer: SelfSupervisedTrainer, epoch: int, at: int) -> None:
        assert self._online is not None
        scores = self._online.scores(trainer.probed_encoder)
        self._say(online_line(trainer.task, self._tasks[trainer.task], epoch, scores))
        self.log.add(
            at,
            {f"online/{name}/val_micro_map": s for name, s in scores.items() if s is not None},
        )
