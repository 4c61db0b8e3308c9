"""Train one run, or extend a finished one."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rscl_bench.api.arguments import (
    Settings,
    as_data_root,
    as_method,
    as_run_spec,
    as_scenario,
    output_folder,
    with_init,
)
from rscl_bench.api.preparation import edition_line, prepare_run, report_notes, reporting
from rscl_bench.cores import let_threads_sleep
from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    from rscl_bench.avalanche_api import BaseSGDPlugin
    from rscl_bench.engine.prepare import PreparedRun
    from rscl_bench.engine.watching import Watching
    from rscl_bench.progress import Reporter
    from rscl_bench.results.schema import RunRecord
    from rscl_bench.spec import Method, OnBadTile, Scenario


def run(
    scenario: "str | Path | Scenario",
    method: "str | Path | Method",
    *,
    protocol: str | None = None,
    seed: int = 0,
    set: Settings | None = None,
    data_root: str | Path | None = None,
    out: str | Path = "runs",
    device: str = "auto",
    threads: int | None = None,
    checkpoint_minutes: float = 10.0,
    on_bad_tile: "OnBadTile" = "stop",
    force: bool = False,
    keep_state: bool | None = None,
    keep_encoders: bool = False,
    init: str | Path | None = None,
    log: Sequence[str] = (),
    watch_epochs: int | None = None,
    plugins: "Sequence[BaseSGDPlugin]" = (),
    verbose: bool = True,
) -> "RunRecord":
    """Train one method through a scenario, probe the encoder after each task, write the record.

    A recorded run is not run again. An interrupted run resumes from its last checkpoint, to the
    same bits as without the interruption.

    Args:
        scenario: A known scenario, a path to a TOML file, or a loaded scenario.
        method: A known method, a path to a TOML file, or a loaded method.
        protocol: A protocol of the scenario; the scenario's default if None.
        seed: Seed of the run.
        set: Values that override the protocol and the recipe.
        data_root: Folder of the real archives. None takes the folder of RSCL_DATA_ROOT, or the
            sketch edition where this variable is not set.
        out: Folder for records and encoders.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        threads: CPU threads of the run; None for OMP_NUM_THREADS, or without it all usable cores.
            The number of threads changes the last bits of results.
        checkpoint_minutes: Minutes between checkpoints within a task; 0 for a checkpoint after
            every step.
        on_bad_tile: Whether an image that cannot be used stops packing, or is left out, counted
            and recorded.
        force: Whether a recorded run is run again, from its beginning.
        keep_state: Whether the last state is kept beside the record, so that `extend` can go on
            from it. None keeps a state of at most 64 MiB.
        keep_encoders: Whether the encoder after every task is kept, as
            ``encoders/NUMBER-TASK.safetensors`` beside the record.
        init: File of weights that the encoder starts from: an ``encoder.safetensors`` of this
            package, or a state dict of timm or torchvision, TorchGeo's included; see
            `rscl_bench.models.initial_weights.load_initial`. None draws the weights by the seed.
        log: Loggers that get losses, speed and scores: ``tensorboard``, ``wandb``, ``mlflow`` or
            ``csv``. A log changes no bit of the run and is no part of its identity.
        watch_epochs: Epochs between two online probings on the validation splits, which are
            printed and logged, and are in no record. None for no online probe.
        plugins: Avalanche plugins, called after the method's strategies. Their class names become
            part of the run's identity; give runs with other parameters of a plugin another ``out``.
        verbose: Whether progress is printed.

    Returns:
        The record; `run_folder` is where record, image scores and encoder lie.

    Raises:
        SpecError: If scenario, method or a value is unknown or not valid.
        ArchiveError: If an archive is missing, partial or holds an unusable file.
        ArtefactError: If the output folder or the cache cannot be written.
        TrainingError: If training fails, such as by a loss that is not finite.
        KeyboardInterrupt: If a signal ended the run; the same call resumes from its checkpoint.
    """
    let_threads_sleep()
    from rscl_bench.engine.run_log import check_logs
    from rscl_bench.engine.watching import Watching

    check_logs(log)  # packing takes up to an hour, so this comes first
    watching = Watching(tuple(log), watch_epochs)
    spec = with_init(as_run_spec(scenario, method, protocol, seed, set), init)
    root, out = as_data_root(data_root), output_folder(out)
    with reporting(verbose) as reporter:
        reporter.message(edition_line(spec.scenario, root))
        report_notes([spec], reporter)
        from rscl_bench.engine.device import cpu_threads
        from rscl_bench.engine.prepare import check_writable

        check_writable(out)  # packing takes up to an hour, so this comes first
        with cpu_threads(threads):
            prepared, _ = prepare_run(spec, root, device, on_bad_tile, reporter)
            prepared = prepared.with_plugins(plugins)
            seconds = 60 * checkpoint_minutes
            return _execute(
                prepared, out, reporter, seconds, force, keep_state, keep_encoders, watching
            )


def extend(
    run: str | Path,
    *,
    dataset: str | None = None,
    split: str | None = None,
    name: str | None = None,
    tile_size: int | None = None,
    cut: Literal["grid", "whole"] | None = None,
    bands: Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
    scenario: "str | Path | Scenario | None" = None,
    method: "str | Path | Method | None" = None,
    data_root: str | Path | None = None,
    out: str | Path = "runs",
    device: str = "auto",
    threads: int | None = None,
    checkpoint_minutes: float = 10.0,
    on_bad_tile: "OnBadTile" = "stop",
    force: bool = False,
    keep_state: bool | None = None,
    keep_encoders: bool = False,
    plugins: "Sequence[BaseSGDPlugin]" = (),
    verbose: bool = True,
) -> "RunRecord":
    """Train a finished run on the next task, from its last state; probe old and new domains.

    The archives of the earlier tasks are not read: the kept state holds the pixels of the tiles
    that a memory of the method keeps. Weights, losses and scores are those of a stream that was run
    in one go. The next task is given by ``dataset`` and ``split``, or by a ``scenario`` whose first
    tasks are those of the run. Protocol, method, ``--set`` assignments and seed are the run's.

    Args:
        run: The folder of the finished run, or its ``record.json``.
        dataset: A registered dataset.
        split: A split of the dataset.
        name: Name of the task; the dataset's name if None.
        tile_size: Side of the tiles in pixels; that of the run's last task if None.
        cut: ``grid`` or ``whole``; that of the run's last task if None.
        bands: Bands in the order of the encoder's input; the sensor's default if None.
        options: Options of the dataset class.
        scenario: A scenario that goes on where the run's scenario ends, in place of ``dataset``.
        method: The recipe of the run; needed only if the recipe names classes by path.
        data_root: As in `run`. A probe of the run whose archive is not there is left out.
        out: As in `run`.
        device: As in `run`; it must compute in the run's precision.
        threads: As in `run`.
        checkpoint_minutes: As in `run`.
        on_bad_tile: As in `run`.
        force: As in `run`.
        keep_state: As in `run`, for the longer stream.
        keep_encoders: As in `run`, for the new tasks.
        plugins: The plugins of the run; their class names must be those of its identity.
        verbose: As in `run`.

    Returns:
        The record of the longer stream, whose ``identity.parent`` names the finished run and the
        digest of its state.

    Raises:
        SpecError: If the task does not continue the run, or another version made the run.
        ArtefactError: If the run kept no state, or a file of it is damaged.
        RsclError: As in `run`.
    """
    let_threads_sleep()
    from rscl_bench.engine.extending import (
        check_plugins,
        extended_spec,
        longer_scenario,
        new_tasks,
    )
    from rscl_bench.engine.parent import read_parent

    parent = read_parent(user_path(run, "The run"))
    given = {
        "dataset": dataset,
        "split": split,
        "name": name,
        "tile_size": tile_size,
        "cut": cut,
        "bands": None if bands is None else list(bands),
        "options": options,
    }
    asked = {key: value for key, value in given.items() if value is not None}
    longer = longer_scenario(parent, None if scenario is None else as_scenario(scenario), asked)
    spec = extended_spec(parent, longer, None if method is None else as_method(method))
    check_plugins(parent, plugins)
    root, out = as_data_root(data_root), output_folder(out)
    with reporting(verbose) as reporter:
        reporter.message(edition_line(spec.scenario, root))
        from rscl_bench.engine.device import cpu_threads
        from rscl_bench.engine.prepare import check_writable

        check_writable(out)
        with cpu_threads(threads):
            prepared, _ = prepare_run(spec, root, device, on_bad_tile, reporter, parent)
            prepared = prepared.with_plugins(plugins)
            for line in new_tasks(prepared):
                reporter.message(line)
            seconds = 60 * checkpoint_minutes
            return _execute(prepared, out, reporter, seconds, force, keep_state, keep_encoders)


def _execute(
    prepared: "PreparedRun",
    out: Path,
    reporter: "Reporter",
    interval: float,
    force: bool,
    keep_state: bool | None,
    keep_encoders: bool,
    watching: "Watching | None" = None,
) -> "RunRecord":
    """Execute a run, unless it is recorded already."""
    from rscl_bench.engine.checkpointing.files import FOLDER, remove_checkpoints
    from rscl_bench.engine.run import execute
    from rscl_bench.results import folders
    from rscl_bench.results.record import read_record

    folder = folders.run_folder(out, prepared.identity)
    path = folder / "record.json"
    if path.is_file() and not force:
        reporter.message("This run is recorded already; --force runs it again.")
        # A run that was killed just after it wrote its record leaves checkpoints.
        remove_checkpoints(folder / FOLDER)
        record = read_record(path)
        if keep_state and record.state_digest is None:
            reporter.message("note: this run kept no state; --keep-state --force keeps it.")
        if keep_encoders and not record.task_encoders:
            reporter.message(
                "note: this run kept no encoder of each task; --keep-encoders --force keeps them."
            )
        return record
    reporter.message(f"Device: {prepared.device.name}, {prepared.device.precision}.")
    return execute(
        prepared,
        folder,
        reporter,
        interval=interval,
        force=force,
        keep_state=keep_state,
        watching=watching,
        keep_encoders=keep_encoders,
    )


def run_folder(record: "RunRecord", out: str | Path = "runs") -> Path:
    """Return the folder of the record, image scores and encoder of a run.

    Args:
        record: The record.
        out: The ``out`` of the run.
    """
    from rscl_bench.results import folders

    return folders.run_folder(output_folder(out), record.identity)
