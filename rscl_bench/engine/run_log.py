"""Logs a run to Lightning's loggers: CSV, TensorBoard, Weights & Biases, MLflow.

A log is no part of a record and changes no bit of a run. An interrupted run repeats the steps after
its last checkpoint; what was logged before is not logged again. The file ``logs/position.json`` in
the run's folder says how far the log has come.
"""

import json
import shutil
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from csv import DictReader
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from rscl_bench.atomic import write_atomic
from rscl_bench.errors import ArtefactError, SpecError, unknown

LogKind = Literal["tensorboard", "wandb", "mlflow", "csv"]
LOGS: tuple[LogKind, ...] = get_args(LogKind)
FOLDER = "logs"
#: Seconds between two writings of logged values.
SECONDS = 2.0
_PROJECT = "rscl-bench"
_MODULES: dict[LogKind, tuple[str, ...]] = {
    "tensorboard": ("tensorboard",),
    "wandb": ("wandb",),
    "mlflow": ("mlflow",),
    "csv": (),
}

Values = Mapping[str, float]


def check_logs(kinds: Sequence[str]) -> None:
    """Refuse an unknown logger, and one whose package is not installed.

    Raises:
        SpecError: If a logger cannot be used.
    """
    for kind in kinds:
        if kind not in LOGS:
            raise unknown("logger", kind, LOGS)
        for module in _MODULES[kind]:
            if find_spec(module) is None:
                raise SpecError(
                    f"--log {kind} needs the package {module}, which is not installed; install it "
                    f"with `pip install 'rscl-bench[{kind}]'`."
                )


class RunLog:
    """The log of one run, in all loggers that were asked for.

    Values are written at most every `SECONDS`, and when `flush` is called.
    """

    def __init__(
        self,
        kinds: Sequence[str],
        folder: Path,
        name: str,
        settings: Mapping[str, Any],
        fresh: bool,
    ):
        """Open the loggers.

        Args:
            kinds: Some of `LOGS`.
            folder: Folder of the run.
            name: Name of the run, for loggers that show several runs.
            settings: What the run is, such as method and seed.
            fresh: Whether the run starts from its beginning, so that an earlier log is removed.

        Raises:
            SpecError: As `check_logs`.
            ArtefactError: If the position of an earlier log is damaged.
        """
        check_logs(kinds)
        self._folder = folder / FOLDER
        self._position = self._folder / "position.json"
        if fresh and kinds:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._state = self._read()
        self._loggers: dict[str, Any] = {}
        for kind in dict.fromkeys(kinds):
            ids = self._state["ids"]
            self._loggers[kind] = _MAKERS[kind](self._folder, name, ids.get(kind), settings)
            ids[kind] = _id_of(kind, self._loggers[kind])
            self._state["last"].setdefault(kind, -1)
        self._waiting: list[tuple[int, dict[str, float]]] = []
        self._written = time.monotonic()

    def __bool__(self) -> bool:
        """Return whether anything is logged."""
        return bool(self._loggers)

    def add(self, step: int, values: Values) -> None:
        """Log values at a step of the stream; the last step's values are joined."""
        if not self._loggers:
            return
        if self._waiting and self._waiting[-1][0] == step:
            self._waiting[-1][1].update(values)
        else:
            self._waiting.append((step, dict(values)))

    def flush_sometimes(self) -> None:
        """Write the waiting values if the last writing is long enough ago."""
        if self._waiting and time.monotonic() - self._written >= SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write the waiting values to the loggers that do not have them yet."""
        self._written = time.monotonic()
        waiting, self._waiting = self._waiting, []
        if not waiting or not self._loggers:
            return
        last = self._state["last"]
        before = dict(last)
        for kind in self._loggers:
            last[kind] = max(last[kind], waiting[-1][0])
        # First the position, then the values: a process that is killed in between loses values of
        # two seconds, and logs no step twice.
        write_atomic(self._position, json.dumps(self._state, sort_keys=True) + "\n")
        for kind, logger in self._loggers.items():
            for step, values in waiting:
                if step > before[kind]:
                    logger.log_metrics(values, step=step)
            logger.save()

    def close(self, status: str = "success") -> None:
        """Write what waits, and end the loggers.

        Args:
            status: ``success`` for a run that has ended, ``failed`` for one that was interrupted.
        """
        self.flush()
        for logger in self._loggers.values():
            logger.finalize(status)
        self._loggers = {}

    def _read(self) -> dict[str, Any]:
        if not self._position.is_file():
            return {"last": {}, "ids": {}}
        try:
            state = json.loads(self._position.read_text(encoding="utf-8"))
            last = {str(kind): int(step) for kind, step in state["last"].items()}
            return {"last": last, "ids": dict(state["ids"])}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtefactError(
                f"{self._position} is damaged; remove the folder {self._folder} to begin a new log."
            ) from error


def _csv(folder: Path, _name: str, _known: str | None, _settings: Mapping[str, Any]) -> Any:
    from lightning.fabric.loggers.csv_logs import CSVLogger

    logger = CSVLogger(folder, name="", version="csv")
    path = folder / "csv" / "metrics.csv"
    earlier: list[dict[str, str]] = []
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            earlier = list(DictReader(file))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it removes the earlier file, whose lines were just read
        experiment = logger.experiment
    experiment.metrics.extend(
        {key: value for key, value in line.items() if value != ""} for line in earlier
    )
    logger.save()
    return logger


def _tensorboard(folder: Path, _name: str, _known: str | None, settings: Mapping[str, Any]) -> Any:
    from lightning.fabric.loggers.tensorboard import TensorBoardLogger

    return TensorBoardLogger(folder, name="", version="tensorboard")


def _wandb(folder: Path, name: str, known: str | None, settings: Mapping[str, Any]) -> Any:
    from lightning.pytorch.loggers import WandbLogger

    folder.mkdir(parents=True, exist_ok=True)
    logger = WandbLogger(name=name, save_dir=folder, project=_PROJECT, id=known, resume="allow")
    logger.log_hyperparams(dict(settings))
    return logger


def _mlflow(folder: Path, name: str, known: str | None, settings: Mapping[str, Any]) -> Any:
    from lightning.pytorch.loggers import MLFlowLogger

    logger = MLFlowLogger(
        experiment_name=_PROJECT, run_name=name, save_dir=str(folder / "mlflow"), run_id=known
    )
    if known is None:
        logger.log_hyperparams(dict(settings))
    return logger


_MAKERS: dict[str, Callable[[Path, str, str | None, Mapping[str, Any]], Any]] = {
    "csv": _csv,
    "tensorboard": _tensorboard,
    "wandb": _wandb,
    "mlflow": _mlflow,
}


def _id_of(kind: str, logger: Any) -> str | None:
    """Return the id by which a logger finds its run again."""
    if kind == "wandb":
        return str(logger.experiment.id)
    return str(logger.run_id) if kind == "mlflow" else None
