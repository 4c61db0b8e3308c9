"""The Python interface: train methods, compare methods, and use the trained encoders.

The package ``rscl_bench`` exports all names of this module::

    import rscl_bench as rb

    record = rb.run("scene4", "cosmae", data_root="archives")
    encoder = rb.load_encoder(rb.run_folder(record) / "encoder.safetensors")
    features = encoder.features(images)

The command line parses its options, calls these functions and prints their results. A function
imports heavy libraries when it runs.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rscl_bench.cores import let_threads_sleep
from rscl_bench.errors import ArchiveError, RsclError, SpecError
from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    import pandas as pd

    from rscl_bench.archives.fetching import ArchiveToFetch
    from rscl_bench.archives.folder.writing import MapDataset
    from rscl_bench.avalanche_api import BaseSGDPlugin
    from rscl_bench.console import Split
    from rscl_bench.engine.parent import ParentRun
    from rscl_bench.engine.prepare import PreparedRun
    from rscl_bench.explain import Explained
    from rscl_bench.pretrained import PretrainedEncoder
    from rscl_bench.progress import Reporter
    from rscl_bench.results.schema import RunRecord
    from rscl_bench.results.tuning import Tuning
    from rscl_bench.results.validation import Verdict
    from rscl_bench.skeletons.writing import SkeletonKind, WrittenSkeleton
    from rscl_bench.spec import Method, OnBadTile, RunSpec, Scenario
    from rscl_bench.studies import Stage
    from rscl_bench.sweeps.pool import Run
    from rscl_bench.sweeps.selection import PlannedRun
    from rscl_bench.sweeps.stage_result import StageResult
    from rscl_bench.tiles.inventory import CacheEntry
    from rscl_bench.tiles.source import ArchiveSource
    from rscl_bench.tiles.store import TileStore

#: Values of ``set`` by key. A key is a field of the protocol (``training.epochs``), of the
#: objective (``objective.mask_ratio``) or of a strategy (``strategies.ewc.weight``).
Settings = Mapping[str, Any]

__all__ = [
    "GridError",
    "cache_entries",
    "clean_cache",
    "explain",
    "extend",
    "fetch",
    "leaderboard",
    "list_components",
    "load_encoder",
    "load_method",
    "load_scenario",
    "new",
    "open_tiles",
    "power",
    "read_record",
    "records",
    "render_sketches",
    "run",
    "run_folder",
    "study",
    "sweep",
    "tune",
    "tuning_path",
    "validate",
    "write_dataset",
    "write_leaderboards",
    "write_sweep_leaderboards",
]


class GridError(RsclError):
    """Some runs of a grid failed, so that no setting can be chosen.

    Attributes:
        runs: All runs of the grid.
    """

    def __init__(self, runs: "Sequence[Run]"):
        failed = [run for run in runs if run.record is None]
        super().__init__(
            f"No setting was chosen, because {len(failed)} of {len(runs)} runs failed; "
            f"the first, {failed[0].name}: {failed[0].reason}"
        )
        self.runs = runs


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
    init: str | Path | None = None,
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
        init: File of weights that the encoder starts from: an ``encoder.safetensors`` of this
            package, or a state dict of timm or torchvision, TorchGeo's included; see
            `rscl_bench.models.initial_weights.load_initial`. None draws the weights by the seed.
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
    spec = _with_init(_resolve(scenario, method, protocol, seed, set), init)
    root, out = _data_root(data_root), _out(out)
    with _reporter(verbose) as reporter:
        reporter.message(_edition(spec.scenario, root))
        _report_notes([spec], reporter)
        from rscl_bench.engine.device import cpu_threads
        from rscl_bench.engine.prepare import check_writable

        check_writable(out)  # packing takes up to an hour, so this comes first
        with cpu_threads(threads):
            prepared, _ = _prepare(spec, root, device, on_bad_tile, reporter)
            prepared = prepared.with_plugins(plugins)
            seconds = 60 * checkpoint_minutes
            return _execute(prepared, out, reporter, seconds, force, keep_state)


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
    longer = longer_scenario(parent, None if scenario is None else _scenario(scenario), asked)
    spec = extended_spec(parent, longer, None if method is None else _method(method))
    check_plugins(parent, plugins)
    root, out = _data_root(data_root), _out(out)
    with _reporter(verbose) as reporter:
        reporter.message(_edition(spec.scenario, root))
        from rscl_bench.engine.device import cpu_threads
        from rscl_bench.engine.prepare import check_writable

        check_writable(out)
        with cpu_threads(threads):
            prepared, _ = _prepare(spec, root, device, on_bad_tile, reporter, parent)
            prepared = prepared.with_plugins(plugins)
            for line in new_tasks(prepared):
                reporter.message(line)
            seconds = 60 * checkpoint_minutes
            return _execute(prepared, out, reporter, seconds, force, keep_state)


def _execute(
    prepared: "PreparedRun",
    out: Path,
    reporter: "Reporter",
    interval: float,
    force: bool,
    keep_state: bool | None,
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
        return record
    reporter.message(f"Device: {prepared.device.name}, {prepared.device.precision}.")
    return execute(
        prepared, folder, reporter, interval=interval, force=force, keep_state=keep_state
    )


def run_folder(record: "RunRecord", out: str | Path = "runs") -> Path:
    """Return the folder of the record, image scores and encoder of a run.

    Args:
        record: The record.
        out: The ``out`` of the run.
    """
    from rscl_bench.results import folders

    return folders.run_folder(_out(out), record.identity)


def sweep(
    scenario: "str | Path | Scenario",
    methods: "str | Path | Method | Sequence[str | Path | Method]",
    *,
    seeds: Sequence[int] = (0, 1, 2),
    protocol: str | None = None,
    set: Settings | None = None,
    data_root: str | Path | None = None,
    out: str | Path = "runs",
    device: str = "auto",
    jobs: int | None = None,
    threads: int | None = None,
    on_bad_tile: "OnBadTile" = "stop",
    force: bool = False,
    keep_state: bool | None = None,
    init: str | Path | None = None,
    verbose: bool = True,
) -> "list[Run]":
    """Run methods × seeds, several at a time, each in its own process.

    All methods run with the first seed, then with the next. Recorded runs are skipped, so that
    the same call resumes an interrupted sweep. A failed run does not stop the others.

    Args:
        scenario: As in `run`.
        methods: One or more methods, each as ``method`` in `run`.
        seeds: Seeds of the runs.
        protocol: As in `run`.
        set: As in `run`, for every method.
        data_root: As in `run`.
        out: As in `run`.
        device: As in `run`.
        jobs: Number of runs at a time; the runs share the cores evenly. None is one run per core
            on a CPU and one run on a GPU.
        threads: CPU threads of each run; None for an even share of the cores. The number of threads
            changes the last bits of results.
        on_bad_tile: As in `run`.
        force: As in `run`.
        keep_state: As in `run`.
        init: As in `run`, for every run.
        verbose: As in `run`.

    Returns:
        The runs. Each has its ``record``, or None and the ``reason`` of its failure.

    Raises:
        RsclError: As in `run`, before the first run starts.
    """
    from rscl_bench.spec import Method
    from rscl_bench.sweeps.selection import method_runs

    several = [methods] if isinstance(methods, str | Path | Method) else methods
    planned = method_runs(
        _scenario(scenario),
        [_method(method) for method in several],
        seeds,
        protocol,
        dict(set or {}),
    )
    options = _Options(
        _data_root(data_root), _out(out), device, jobs, threads, on_bad_tile, force, verbose
    )._replace(keep_state=keep_state)
    return _run_all(_all_with_init(planned, init), options, "method", "test")


def tune(
    scenario: "str | Path | Scenario",
    method: "str | Path | Method",
    grid: Mapping[str, Sequence[Any]],
    *,
    seeds: Sequence[int] = (0,),
    protocol: str | None = None,
    set: Settings | None = None,
    data_root: str | Path | None = None,
    out: str | Path = "runs",
    device: str = "auto",
    jobs: int | None = None,
    threads: int | None = None,
    on_bad_tile: "OnBadTile" = "stop",
    store: str | Path | None = None,
    init: str | Path | None = None,
    verbose: bool = True,
) -> "Tuning":
    """Choose hyper-parameters on the validation splits of the probes, without any test score.

    Every setting of the grid is run as in `sweep`. The score of a setting is the mean over seeds
    and probes of the micro-mAP on the validation split after the last task. The setting with the
    highest score is chosen; of settings with equal scores, the first one in the grid.

    Args:
        scenario: As in `run`.
        method: As in `run`.
        grid: Values to try by parameter (``{"strategies.ewc.weight": [1, 10]}``); all combinations
            are tried, the last parameter varying fastest.
        seeds: Seeds of the runs.
        protocol: As in `run`.
        set: As in `run`, for every setting.
        data_root: As in `run`.
        out: As in `run`.
        device: As in `run`.
        jobs: As in `sweep`.
        threads: As in `sweep`.
        on_bad_tile: As in `run`.
        store: File for the choice and the scores of the grid; None for a file below ``out/tuning``.
        init: As in `run`, for every setting.
        verbose: As in `run`.

    Returns:
        The chosen setting, and the validation scores of all settings.

    Raises:
        GridError: If a run fails: every setting must be scored.
        RsclError: As in `run`, before the first run starts.
    """
    from rscl_bench.results.tuning import make_tuning, write_tuning
    from rscl_bench.sweeps.selection import grid_runs

    planned = grid_runs(
        _scenario(scenario), _method(method), grid, seeds, protocol, dict(set or {})
    )
    options = _Options(
        _data_root(data_root), _out(out), device, jobs, threads, on_bad_tile, False, verbose
    )
    runs = _run_all(_all_with_init(planned, init), options, "setting", "val")
    settings: dict[str, list[RunRecord]] = {}
    for run in runs:
        if run.record is None:
            raise GridError(runs)
        settings.setdefault(run.label, []).append(run.record)
    tuning = make_tuning(list(grid), list(settings.values()))
    write_tuning(
        tuning, tuning_path(tuning, out) if store is None else user_path(store, "The file")
    )
    return tuning


def study(
    path: str | Path,
    *,
    stages: Sequence[str] = (),
    only_plan: bool = False,
    data_root: str | Path | None = None,
    out: str | Path = "runs",
    device: str = "auto",
    jobs: int | None = None,
    threads: int | None = None,
    verbose: bool = True,
) -> "Iterator[StageResult]":
    """Run the sweeps and grids of a study, and publish their records and choices.

    Runs that are published are not run again, on whatever machine they were made. The record of a
    run is published when the run ends. So the same call resumes an interrupted study.

    Args:
        path: The study's TOML; see `rscl_bench.studies`.
        stages: Names of the stages to run; all if empty.
        only_plan: Whether nothing is run: the states of all runs are returned. Tiles are packed.
        data_root: As in `run`.
        out: Folder for runs, with their image scores and encoders.
        device: As in `run`.
        jobs: As in `sweep`.
        threads: As in `sweep`.
        verbose: As in `run`.

    Yields:
        The result of each stage, when the stage has ended.

    Raises:
        SpecError: If the study or a stage is unknown or not valid.
        RsclError: As in `run`.
    """
    from rscl_bench.studies import load_study
    from rscl_bench.sweeps.stage_result import StageResult

    declared = load_study(path)
    folder = Path(declared.publish)
    for stage in declared.chosen(stages):
        options = _Options(
            data_root=_data_root(data_root),
            out=_out(out),
            device=device,
            jobs=jobs,
            threads=threads,
            on_bad_tile="stop",
            force=False,
            verbose=verbose,
            published=folder / ("tuning/records" if stage.grid else "records"),
        )
        runs = _stage_runs(stage, options, only_plan)
        yield StageResult(stage, runs, _write_tunings(stage, runs, folder / "tuning"))


def tuning_path(tuning: "Tuning", out: str | Path = "runs") -> Path:
    """Return the default path of the file in which `tune` stores a choice."""
    from rscl_bench.results.tuning import FOLDER

    return _out(out) / FOLDER / tuning.path()


def load_encoder(path: str | Path, backbone: str | None = None) -> "PretrainedEncoder":
    """Load the encoder of a finished run, ready to encode new images.

    Args:
        path: The run's ``encoder.safetensors``.
        backbone: For a backbone of your own that was used by path: the path of its class,
            ``file.py:Class``.

    Returns:
        The encoder in evaluation mode, on the CPU; see
        `rscl_bench.pretrained.PretrainedEncoder`.

    Raises:
        ArtefactError: If the file is damaged, or a run of an older version wrote the file.
        SpecError: If the backbone is not installed, or its code is not the code of the run.
    """
    from rscl_bench.pretrained import load_pretrained

    return load_pretrained(user_path(path, "The encoder"), backbone)


def read_record(path: str | Path) -> "RunRecord":
    """Read and check a run record.

    Raises:
        ArtefactError: If the file cannot be read, is damaged or contradicts itself.
    """
    from rscl_bench.results.record import read_record

    return read_record(user_path(path, "The record"))


def records(*folders: str | Path) -> "pd.DataFrame":
    """Return all scores of the run records below folders, one row each.

    Returns:
        A row per run, task, probe, split and score; see
        `rscl_bench.leaderboards.frame.records_frame`.

    Raises:
        ArtefactError: If there is no record, or a record is damaged.
    """
    from rscl_bench.leaderboards.frame import records_frame
    from rscl_bench.results.files import find_records

    paths = find_records(_paths(folders)).records
    return records_frame([read_record(path) for path in paths])


def leaderboard(records: "str | Path | Iterable[str | Path]") -> "dict[str, pd.DataFrame]":
    """Return the leaderboards of run records: one per scenario and protocol.

    Args:
        records: Folders or files of run records, one or more.

    Returns:
        The tables by folder, such as ``scene4-v2/cpu``. A table has a row per method and the
        columns of ``leaderboard.csv``. Scores are in percent and not rounded.

    Raises:
        ArtefactError: If there is no record, a record is damaged, or records contradict each other.
    """
    from rscl_bench.leaderboards.build import leaderboards

    return leaderboards(_paths(records))


def write_leaderboards(
    records: "str | Path | Iterable[str | Path]", out: str | Path | None = None
) -> list[Path]:
    """Write one leaderboard per scenario, protocol and package version: CSV and Markdown.

    A table in ``out`` that holds other runs than the records is not replaced.

    Args:
        records: Folders or files of run records, one or more.
        out: Folder for the tables; None for the folder ``leaderboards`` in the first folder of
            records.

    Returns:
        The files written, sorted.

    Raises:
        ArtefactError: If there is no record, a record is damaged, records contradict each other, or
            a table in ``out`` holds runs that are not among the records.
    """
    from rscl_bench.leaderboards.build import build_leaderboard

    return build_leaderboard(_paths(records), None if out is None else _out(out))


def power(
    records: "str | Path | Iterable[str | Path]", seeds: Sequence[int] = (3, 5, 8, 12, 20)
) -> "pd.DataFrame":
    """Return the differences between methods that numbers of seeds can separate.

    Args:
        records: Folders or files of run records, one or more.
        seeds: Numbers of seeds.

    Returns:
        A row per table, measure and number of seeds; see
        `rscl_bench.leaderboards.power.power_table`.

    Raises:
        SpecError: If a number of seeds is below two.
        ArtefactError: If the records are damaged, or too few.
    """
    from rscl_bench.leaderboards.power import power_table

    return power_table(_paths(records), seeds)


def write_sweep_leaderboards(runs: "Sequence[Run]", out: str | Path = "runs") -> list[Path]:
    """Write the leaderboards of a sweep below ``out/leaderboards``.

    The tables hold all recorded runs of the sweep's scenario and protocol below ``out``, those of
    earlier sweeps included.

    Args:
        runs: The runs, from `sweep`.
        out: The ``out`` of the sweep.

    Returns:
        The files written, sorted; none if no run has a record.

    Raises:
        ArtefactError: As in `write_leaderboards`.
    """
    from rscl_bench.leaderboards.build import build_leaderboard
    from rscl_bench.leaderboards.places import TABLES
    from rscl_bench.results.folders import protocol_folder

    recorded = [run.record for run in runs if run.record is not None]
    if not recorded:
        return []
    sources = {protocol_folder(_out(out), record.identity) for record in recorded}
    ids = {record.id for record in recorded}
    return build_leaderboard(sorted(sources), _out(out) / TABLES, only=ids)


def validate(records: "str | Path | Iterable[str | Path]") -> "dict[Path, Verdict]":
    """Check run records, and recompute every score from the scores of their images.

    Args:
        records: Folders or files of run records, one or more.

    Returns:
        The verdict by path of the record; see `rscl_bench.results.validation.Verdict`.

    Raises:
        ArtefactError: If there is no record.
    """
    from rscl_bench.results.files import find_records
    from rscl_bench.results.validation import verdicts

    return verdicts(find_records(_paths(records)).records)


def foreign_files(records: "str | Path | Iterable[str | Path]") -> list[Path]:
    """Return the JSON files below folders that are no run records; other functions leave them out.

    Args:
        records: Folders or files of run records, one or more.
    """
    from rscl_bench.results.files import find_records

    return find_records(_paths(records)).foreign


def open_tiles(
    scenario: "str | Path | Scenario",
    *,
    data_root: str | Path | None = None,
    on_bad_tile: "OnBadTile" = "stop",
    verbose: bool = True,
) -> "dict[str, TileStore]":
    """Open all tiles of a scenario; pack tiles that are not packed yet.

    Args:
        scenario: As in `run`.
        data_root: As in `run`.
        on_bad_tile: As in `run`.
        verbose: As in `run`.

    Returns:
        The tile stores by ``task NAME`` and ``probe NAME ROLE``.

    Raises:
        ArchiveError: If an archive is missing, partial or holds an unusable file.
        ArtefactError: If stored tiles have changed, or the cache is not writable.
    """
    from rscl_bench.tiles.source import find_archives

    loaded, root = _scenario(scenario), _data_root(data_root)
    with _reporter(verbose) as reporter:
        reporter.message(_edition(loaded, root))
        archives = find_archives(loaded, root, on_bad_tile, reporter)
        stores = {
            f"task {task.name}": archives.open(task, False, reporter.progress)
            for task in loaded.tasks
        }
        for probe in loaded.probes:
            for role, split in probe.splits().items():
                store = archives.open(probe.source(split), True, reporter.progress)
                stores[f"probe {probe.name} {role}"] = store
        for name, store in stores.items():
            _tell_of_older(name, store, reporter)
    return stores


def write_dataset(
    name: str,
    splits: "Mapping[str, MapDataset]",
    *,
    data_root: str | Path | None = None,
    sensor: "str | Mapping[str, Any]",
    classes: Sequence[str] = (),
    verbose: bool = True,
) -> dict[str, Any]:
    """Write the samples of torch datasets as an archive, and return how a scenario names it.

    A dataset in memory has no files whose digests could stand in the identity of a run. This
    function therefore reads every sample once and writes its array below the data root. The runs
    then read these files, in this process and in those of a sweep. A later call with equal samples
    changes nothing; other samples are refused as long as the folder is there.

    Args:
        name: Folder below the data root, such as ``"mine"``.
        splits: A map-style dataset for each split. A sample is an image, ``(image, label)``, or a
            dictionary of TorchGeo with ``image`` and ``label`` or ``mask``. An image is a tensor
            ``[C, H, W]`` of whole numbers, or a picture of Pillow. A label is the number of a
            class, ``[L]`` of 0 and 1, or a mask ``[H, W]`` of class numbers, 255 where undefined.
        data_root: Folder of the archives; None for RSCL_DATA_ROOT.
        sensor: Name of a sensor, or its values: ``bands``, ``unit``, ``dtype``, ``scale``.
        classes: Names of the classes in the order of their numbers; without them, labels are left
            out.
        verbose: As in `run`.

    Returns:
        ``dataset`` and ``options`` of a `rscl_bench.spec.Task` or `rscl_bench.spec.Probe`.

    Raises:
        SpecError: If a name or the sensor is not valid, or there is no data root.
        ArchiveError: If a sample is not valid, or the folder holds other files.
        ArtefactError: If the folder cannot be written.
    """
    from rscl_bench.archives.folder.writing import write_samples

    root = _data_root(data_root)
    if root is None:
        raise SpecError(f"Dataset '{name}' needs a folder: give data_root, or set RSCL_DATA_ROOT.")
    with _reporter(verbose) as reporter:
        options = write_samples(name, splits, root, sensor, classes, reporter.progress)
    return {"dataset": "folder", "options": options}


def fetch(
    scenario: "str | Path | Scenario",
    *,
    data_root: str | Path | None = None,
    agree: "Callable[[list[ArchiveToFetch]], bool]",
    verbose: bool = True,
) -> None:
    """Download the archives of a scenario that can be downloaded, and unpack them.

    No other function downloads anything. An interrupted download resumes when the function is
    called again. Archives that ask for a login or a form are fetched by hand; the error says where.

    Args:
        scenario: As in `run`.
        data_root: Folder of the real archives. None takes the folder of RSCL_DATA_ROOT.
        agree: Called with the archives that would be downloaded; returns whether the user agrees
            with their licences and sizes, which `ArchiveToFetch.described` shows. It is not called
            if nothing can be downloaded.
        verbose: As in `run`.

    Raises:
        SpecError: If there is no data root, or the scenario is not valid.
        ArchiveError: If an archive is still missing or partial at the end.
        ArtefactError: If the data root cannot be written, or has too little room.
    """
    from rscl_bench.archives.fetching import fetch_archives, missing_archives

    root, loaded = _data_root(data_root), _scenario(scenario)
    if root is None:
        raise SpecError("Give the folder for the archives with --data-root, or set RSCL_DATA_ROOT.")
    with _reporter(verbose) as reporter:
        found = missing_archives(loaded, root, reporter)
    offered = [archive for archive in found if archive.files]
    agreed = not offered or agree(offered)
    with _reporter(verbose) as reporter:
        by_hand = [archive for archive in found if not archive.files]
        failed = fetch_archives(found if agreed else by_hand, reporter)
        for sentence in failed[:-1]:
            reporter.message(sentence)
    if not agreed:
        failed.append("Nothing was downloaded, because the licences were not agreed to.")
    if failed:
        raise ArchiveError(failed[-1])


def cache_entries() -> "list[CacheEntry]":
    """Return what the cache holds: packed tiles, sketches and unfinished work.

    Returns:
        One entry per folder, with its size and, for tiles, when they were last opened.
    """
    from rscl_bench.tiles.cache import cache_folder
    from rscl_bench.tiles.inventory import entries

    return entries(cache_folder())


def clean_cache(entries: "Iterable[CacheEntry]") -> None:
    """Remove folders of the cache; what a run needs is packed or rendered again.

    Args:
        entries: Some of `cache_entries`.

    Raises:
        ArtefactError: If a folder cannot be removed.
    """
    from rscl_bench.tiles.inventory import remove

    remove(entries)


def render_sketches(
    scenario: "str | Path | Scenario", out: str | Path, *, verbose: bool = True
) -> Path:
    """Render the synthetic archives of a scenario, in their true layouts, into a folder.

    Args:
        scenario: As in `run`.
        out: Folder to write to.
        verbose: As in `run`.

    Returns:
        The data root, below ``out``.
    """
    from rscl_bench.archives.lookup import adapters_of
    from rscl_bench.archives.sketch import render

    with _reporter(verbose) as reporter:
        return render(
            adapters_of(_scenario(scenario)),
            _out(out),
            reporter.progress,
            "choose with --out a folder that is writable and has room",
        )


def list_components(kind: str) -> dict[str, str]:
    """Return the registered names of one kind, each with a description in one line.

    Args:
        kind: ``scenarios``, ``methods``, ``objectives``, ``strategies``, ``probes``,
            ``datasets`` or ``backbones``.

    Raises:
        SpecError: If there is no such kind.
    """
    from rscl_bench import catalogue

    return catalogue.summaries(kind)


def explain(
    name: str,
    *,
    scenario: str | None = None,
    protocol: str | None = None,
    set: Settings | None = None,
) -> "list[Explained]":
    """Explain a method, scenario, component or sensor: values, parameters and their meanings.

    Args:
        name: A name, a path to a TOML, or ``KIND:NAME``, such as ``strategy:ewc``.
        scenario: For a method: a known scenario or a path to a TOML; the values are then those of a
            run. None leaves the values of protocols out.
        protocol: As in `run`.
        set: As in `run`.

    Returns:
        One explanation for each thing of this name; see `rscl_bench.explain.Explained`.

    Raises:
        SpecError: If nothing has the name, or a value is not valid.
    """
    from rscl_bench import explain as explaining

    return explaining.explain(name, scenario, protocol, set)


def new(kind: "SkeletonKind", name: str, into: str | Path = ".") -> "WrittenSkeleton":
    """Write a working component with its TOML and its test, to begin from.

    Args:
        kind: ``dataset``, ``method``, ``objective``, ``probe``, ``scenario`` or ``strategy``.
        name: Name of the component: small letters, digits and single hyphens. Files and class have
            names made from it: ``my-probe`` gives ``my_probe.py`` with the class ``MyProbe``,
            ``my-probe.toml`` and ``test_my_probe.py``.
        into: Folder to write to; made where absent.

    Returns:
        The files, and the commands that run and test them.

    Raises:
        SpecError: If the kind is unknown, or the name is not allowed or taken.
        ArtefactError: If a file exists or cannot be written. No file is written then.
    """
    from rscl_bench.skeletons.writing import write_skeleton

    return write_skeleton(kind, name, into)


def load_scenario(name: str | Path) -> "Scenario":
    """Return a scenario by name or by path to a TOML.

    Raises:
        SpecError: If the scenario is unknown or not valid.
    """
    from rscl_bench import declarations

    return declarations.load_scenario(str(name))


def load_method(name: str | Path) -> "Method":
    """Return a method by name or by path to a TOML.

    Raises:
        SpecError: If the method is unknown or not valid.
    """
    from rscl_bench import declarations

    return declarations.load_method(str(name))


def _scenario(scenario: "str | Path | Scenario") -> "Scenario":
    from rscl_bench import registry
    from rscl_bench.declarations import with_bands

    registry.reload_changed()  # every call that runs code by path begins here
    if isinstance(scenario, str | Path):
        return load_scenario(scenario)
    return with_bands(scenario)


def _method(method: "str | Path | Method") -> "Method":
    return load_method(method) if isinstance(method, str | Path) else method


def _resolve(
    scenario: "str | Path | Scenario",
    method: "str | Path | Method",
    protocol: str | None,
    seed: int,
    set: Settings | None,
) -> "RunSpec":
    from rscl_bench.resolve import resolve_run

    return resolve_run(_scenario(scenario), _method(method), protocol, seed, dict(set or {}))


def _with_init(spec: "RunSpec", init: str | Path | None) -> "RunSpec":
    """Return a run whose encoder starts from a file, if one is given."""
    if init is None:
        return spec
    from rscl_bench.engine.initial import initial_weights

    weights = initial_weights(user_path(init, "The file of initial weights").resolve())
    return spec.model_copy(update={"init": weights})


def _all_with_init(planned: "list[PlannedRun]", init: str | Path | None) -> "list[PlannedRun]":
    if init is None:
        return planned
    weights = _with_init(planned[0].spec, init).init  # read once
    return [run._replace(spec=run.spec.model_copy(update={"init": weights})) for run in planned]


def _paths(records: "str | Path | Iterable[str | Path]") -> list[Path]:
    given = [records] if isinstance(records, str | Path) else records
    return [user_path(path, "The path of records") for path in given]


def _out(given: str | Path) -> Path:
    return user_path(given, "The output folder")


def _data_root(given: str | Path | None) -> Path | None:
    """Return the folder of real archives, None for the sketch edition."""
    chosen = given or os.environ.get("RSCL_DATA_ROOT")
    return user_path(chosen, "The data root") if chosen else None


def _report_notes(specs: "Iterable[RunSpec]", reporter: "Reporter") -> None:
    for note in dict.fromkeys(note for spec in specs for note in spec.notes):
        reporter.message(f"note: {note}")


def _edition(scenario: "Scenario", data_root: Path | None) -> str:
    """Return the line that says which edition of the archives a command reads."""
    if data_root is not None:
        return f"Archives of {scenario.name} from {data_root}."
    return (
        f"Sketch edition of {scenario.name}: small synthetic images, whose scores say nothing "
        "about real images. For real archives give --data-root DIR or set RSCL_DATA_ROOT."
    )


@contextmanager
def _reporter(verbose: bool) -> "Iterator[Reporter]":
    if verbose:
        from rscl_bench.console import reporter

        with reporter() as shown:
            yield shown
    else:
        from rscl_bench.progress import SilentReporter

        yield SilentReporter()


def _prepare(
    spec: "RunSpec",
    data_root: Path | None,
    device: str,
    on_bad_tile: "OnBadTile",
    reporter: "Reporter",
    parent: "ParentRun | None" = None,
) -> "tuple[PreparedRun, ArchiveSource]":
    """Open the tiles of a run; pack tiles that are not packed yet."""
    from rscl_bench.engine.initial import init_lines
    from rscl_bench.engine.prepare import open_run
    from rscl_bench.tiles.source import find_archives

    archives = find_archives(spec.scenario, data_root, on_bad_tile, reporter)
    prepared = open_run(spec, archives, device, reporter.progress, parent)
    for line in [] if prepared.init is None else init_lines(prepared.init):
        reporter.message(line)
    for name, store in prepared.named_stores().items():
        _tell_of_older(name, store, reporter)
        if store.blank:
            reporter.message(f"note: {store.blank} of {len(store)} tiles in {store.path} are blank")
        if store.missing_share:
            reporter.message(
                f"note: {store.missing_share:.2%} of the pixels of {name} are declared as missing "
                "(nodata); they are filled and left out of mean and deviation"
            )
        if store.skipped:
            reporter.message(
                f"note: {len(store.skipped)} images of {name} cannot be used and were left out: "
                f"{', '.join(store.skipped)}"
            )
    return prepared, archives


def _tell_of_older(name: str, store: "TileStore", reporter: "Reporter") -> None:
    if store.older:
        reporter.message(
            f"note: the tiles of {name} were packed by an older version, and are packed again; "
            "`rscl-bench data clean --unused` frees the old ones"
        )


class _Options(NamedTuple):
    """The options that all runs of a sweep share, besides scenario and protocol; see `sweep`.

    ``published`` is the folder of published records of a study: its runs are not run again, and
    new records are copied there.
    """

    data_root: Path | None
    out: Path
    device: str
    jobs: int | None
    threads: int | None
    on_bad_tile: "OnBadTile"
    force: bool
    verbose: bool
    published: Path | None = None
    keep_state: bool | None = None


def _run_all(
    planned: "list[PlannedRun]", options: _Options, column: str, split: "Split"
) -> "list[Run]":
    """Pack the tiles once, then execute the runs that have no record."""
    from rscl_bench.sweeps.pool import run_all

    runs, jobs = _plan_all(planned, options)
    if options.verbose:
        from rscl_bench.console import sweep_view

        with sweep_view(runs, column, split) as changed:
            run_all(runs, jobs, _publishing(changed, options.published))
    else:
        run_all(runs, jobs, _publishing(lambda _: None, options.published))
    return runs


def _publishing(
    changed: "Callable[[Run], None]", published: Path | None
) -> "Callable[[Run], None]":
    """Return a listener that publishes the record of every run that has ended."""
    if published is None:
        return changed
    from rscl_bench.results.published import publish

    def listen(run: "Run") -> None:
        if run.state == "done" and run.record is not None:
            publish(run.record_path, run.record, published)
        changed(run)

    return listen


def _plan_all(planned: "list[PlannedRun]", options: _Options) -> "tuple[list[Run], int]":
    """Pack the tiles, and return the runs with their states and the number of runs at a time."""
    from rscl_bench.results.published import publish, published_records
    from rscl_bench.sweeps.plan import plan
    from rscl_bench.sweeps.pool import share_cores

    spec, root = planned[0].spec, options.data_root
    with _reporter(options.verbose) as reporter:
        reporter.message(_edition(spec.scenario, root))
        _report_notes([run.spec for run in planned], reporter)
        from rscl_bench.engine.prepare import check_writable

        check_writable(options.out)
        prepared, archives = _prepare(
            spec,
            root,
            options.device,
            options.on_bad_tile,
            reporter,
        )
        jobs, threads = share_cores(options.jobs, options.threads, prepared.device.torch.type)
        known = published_records(options.published) if options.published else {}
        runs = plan(
            planned,
            prepared,
            archives,
            threads,
            options.out,
            options.force,
            known,
            options.keep_state,
        )
        for run in runs:
            if options.published and run.record is not None and run.record_path.is_file():
                publish(run.record_path, run.record, options.published)
        waiting = sum(run.state == "waiting" for run in runs)
        reporter.message(
            f"{len(runs)} runs: {len(runs) - waiting} recorded before, {waiting} to do; {jobs} at "
            f"a time, {threads} thread{'' if threads == 1 else 's'} each."
        )
    return runs, jobs


def _stage_runs(stage: "Stage", options: _Options, only_plan: bool) -> "list[Run]":
    from rscl_bench.sweeps.selection import grid_runs, method_runs

    scenario, methods = _scenario(stage.scenario), [_method(name) for name in stage.methods]
    shared = stage.seeds, stage.protocol, stage.set
    if stage.grid:
        grids = [grid_runs(scenario, method, stage.grid, *shared) for method in methods]
    else:
        grids = [method_runs(scenario, methods, *shared)]
    column, split = ("setting", "val") if stage.grid else ("method", "test")
    if only_plan:
        return [run for planned in grids for run in _plan_all(planned, options)[0]]
    return [run for planned in grids for run in _run_all(planned, options, column, split)]  # type: ignore[arg-type]


def _write_tunings(stage: "Stage", runs: "list[Run]", folder: Path) -> list[Path]:
    """Write the choice of each method of a grid whose runs are all recorded."""
    from rscl_bench.results.tuning import make_tuning, write_tuning

    paths = []
    by_method: dict[str, list[Run]] = {}
    for run in runs if stage.grid else []:
        by_method.setdefault(run.job.spec.method.name, []).append(run)
    for own in by_method.values():
        settings: dict[str, list[RunRecord]] = {}
        for run in own:
            if run.record is not None:
                settings.setdefault(run.label, []).append(run.record)
        if sum(map(len, settings.values())) < len(own):
            continue
        tuning = make_tuning(list(stage.grid), list(settings.values()))
        paths.append(folder / tuning.path())
        write_tuning(tuning, paths[-1])
    return paths
