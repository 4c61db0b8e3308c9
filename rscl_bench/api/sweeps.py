"""Train many runs: sweeps, grids and studies."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rscl_bench.api.arguments import (
    Settings,
    all_with_init,
    as_data_root,
    as_method,
    as_scenario,
    output_folder,
)
from rscl_bench.api.stages import Options, run_all_planned, stage_runs, write_tunings
from rscl_bench.errors import RsclError
from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    from rscl_bench.results.schema import RunRecord
    from rscl_bench.results.tuning import Tuning
    from rscl_bench.spec import Method, OnBadTile, Scenario
    from rscl_bench.sweeps.pool import Run
    from rscl_bench.sweeps.stage_result import StageResult


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
    keep_encoders: bool = False,
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
        keep_encoders: As in `run`.
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
        as_scenario(scenario),
        [as_method(method) for method in several],
        seeds,
        protocol,
        dict(set or {}),
    )
    options = Options(
        as_data_root(data_root),
        output_folder(out),
        device,
        jobs,
        threads,
        on_bad_tile,
        force,
        verbose,
    )._replace(keep_state=keep_state, keep_encoders=keep_encoders)
    return run_all_planned(all_with_init(planned, init), options, "method", "test")


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
        as_scenario(scenario), as_method(method), grid, seeds, protocol, dict(set or {})
    )
    options = Options(
        as_data_root(data_root),
        output_folder(out),
        device,
        jobs,
        threads,
        on_bad_tile,
        False,
        verbose,
    )
    runs = run_all_planned(all_with_init(planned, init), options, "setting", "val")
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
    keep_encoders: bool = False,
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
        keep_encoders: As in `run`.
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
        options = Options(
            data_root=as_data_root(data_root),
            out=output_folder(out),
            device=device,
            jobs=jobs,
            threads=threads,
            on_bad_tile="stop",
            force=False,
            verbose=verbose,
            keep_encoders=keep_encoders,
            published=folder / ("tuning/records" if stage.grid else "records"),
        )
        runs = stage_runs(stage, options, only_plan)
        tunings = [] if only_plan else write_tunings(stage, runs, folder / "tuning")
        yield StageResult(stage, runs, tunings)


def tuning_path(tuning: "Tuning", out: str | Path = "runs") -> Path:
    """Return the default path of the file in which `tune` stores a choice."""
    from rscl_bench.results.tuning import FOLDER

    return output_folder(out) / FOLDER / tuning.path()


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
    sources = {protocol_folder(output_folder(out), record.identity) for record in recorded}
    ids = {record.id for record in recorded}
    return build_leaderboard(sorted(sources), output_folder(out) / TABLES, only=ids)
