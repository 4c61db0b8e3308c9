"""How the runs of a sweep, a grid or a stage of a study are planned, executed and published."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rscl_bench.api.arguments import as_method, as_scenario
from rscl_bench.api.preparation import edition_line, prepare_run, report_notes, reporting

if TYPE_CHECKING:
    from collections.abc import Callable

    from rscl_bench.console import Split
    from rscl_bench.results.schema import RunRecord
    from rscl_bench.spec import OnBadTile
    from rscl_bench.studies import Stage
    from rscl_bench.sweeps.pool import Run
    from rscl_bench.sweeps.selection import PlannedRun


class Options(NamedTuple):
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
    keep_encoders: bool = False


def run_all_planned(
    planned: "list[PlannedRun]", options: Options, column: str, split: "Split"
) -> "list[Run]":
    """Pack the tiles once, then execute the runs that have no record."""
    from rscl_bench.sweeps.pool import run_all

    runs, jobs = plan_all(planned, options)
    if options.published is not None:
        _publish_recorded(runs, options.published)
    if options.verbose:
        from rscl_bench.console import sweep_view

        with sweep_view(runs, column, split) as changed:
            run_all(runs, jobs, _publishing(changed, options.published))
    else:
        run_all(runs, jobs, _publishing(lambda _: None, options.published))
    return runs


def _publish_recorded(runs: "list[Run]", published: Path) -> None:
    """Publish the records that an interrupted study left unpublished."""
    from rscl_bench.results.published import publish

    for run in runs:
        if run.record is not None and run.record_path.is_file():
            publish(run.record_path, run.record, published)


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


def plan_all(planned: "list[PlannedRun]", options: Options) -> "tuple[list[Run], int]":
    """Pack the tiles, and return the runs with their states and the number of runs at a time."""
    from rscl_bench.results.published import published_records
    from rscl_bench.sweeps.plan import plan
    from rscl_bench.sweeps.pool import share_cores

    spec, root = planned[0].spec, options.data_root
    with reporting(options.verbose) as reporter:
        reporter.message(edition_line(spec.scenario, root))
        report_notes([run.spec for run in planned], reporter)
        from rscl_bench.engine.prepare import check_writable

        check_writable(options.out)
        prepared, archives = prepare_run(
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
            options.keep_encoders,
        )
        waiting = sum(run.state == "waiting" for run in runs)
        reporter.message(
            f"{len(runs)} runs: {len(runs) - waiting} recorded before, {waiting} to do; {jobs} at "
            f"a time, {threads} thread{'' if threads == 1 else 's'} each."
        )
    return runs, jobs


def stage_runs(stage: "Stage", options: Options, only_plan: bool) -> "list[Run]":
    """Execute the runs of a stage, or only plan them."""
    from rscl_bench.sweeps.selection import grid_runs, method_runs

    scenario, methods = as_scenario(stage.scenario), [as_method(name) for name in stage.methods]
    shared = stage.seeds, stage.protocol, stage.set
    if stage.grid:
        grids = [grid_runs(scenario, method, stage.grid, *shared) for method in methods]
    else:
        grids = [method_runs(scenario, methods, *shared)]
    column, split = ("setting", "val") if stage.grid else ("method", "test")
    if only_plan:
        return [run for planned in grids for run in plan_all(planned, options)[0]]
    return [run for planned in grids for run in run_all_planned(planned, options, column, split)]  # type: ignore[arg-type]


def write_tunings(stage: "Stage", runs: "list[Run]", folder: Path) -> list[Path]:
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
