"""The commands that train many runs: `sweep`, `tune` and `study`."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from rscl_bench import api
from rscl_bench.cli.application import app, exit_status, exit_with, how_interrupted
from rscl_bench.cli.options import (
    RUNS,
    DataRootOption,
    DeviceOption,
    ForceOption,
    InitOption,
    JobsOption,
    KeepEncodersOption,
    KeepStateOption,
    MethodOption,
    OnBadOption,
    OutOption,
    ProtocolOption,
    ScenarioOption,
    SetOption,
    ThreadsOption,
    announce_code,
)
from rscl_bench.output import lasting_output


@app.command()
def sweep(
    scenario: ScenarioOption,
    methods: Annotated[str, typer.Option(metavar="A,B,C", help="Known methods or paths to TOMLs.")],
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Seeds of the runs.")] = "0,1,2",
    protocol: ProtocolOption = None,
    data_root: DataRootOption = None,
    out: OutOption = RUNS,
    device: DeviceOption = "auto",
    jobs: JobsOption = None,
    threads: ThreadsOption = None,
    assignments: SetOption = None,
    on_bad_tile: OnBadOption = "stop",
    force: ForceOption = False,
    keep_state: KeepStateOption = None,
    keep_encoders: KeepEncodersOption = False,
    init: InitOption = None,
) -> None:
    """Run methods × seeds, several at a time, and build and print their leaderboard.

    All methods run with the first seed, then with the next, so that an interrupted sweep already
    compares methods. Recorded runs are skipped, so the same command resumes an interrupted sweep.
    A failed run does not stop the others. The leaderboard has all recorded runs of the scenario and
    protocol below the folder of records, earlier sweeps included.
    """
    from rscl_bench.console import print_failures, print_leaderboards
    from rscl_bench.resolve import parse_assignments
    from rscl_bench.sweeps.selection import split_list, split_seeds

    listed = split_list("--methods", methods)
    with lasting_output(), _interruptible(force):
        announce_code(scenario, *listed)
        runs = api.sweep(
            scenario,
            listed,
            seeds=split_seeds(seeds),
            protocol=protocol,
            set=parse_assignments(assignments or ()),
            data_root=data_root,
            out=out,
            device=device,
            jobs=jobs,
            threads=threads,
            on_bad_tile=on_bad_tile,
            force=force,
            keep_state=keep_state,
            keep_encoders=keep_encoders,
            init=init,
        )
        print_failures(runs)
        tables = api.write_sweep_leaderboards(runs, out)
        for path in tables:
            print(path)
        print_leaderboards(tables)
    if any(run.record is None for run in runs):
        raise typer.Exit(1)


@app.command()
def tune(
    scenario: ScenarioOption,
    method: MethodOption,
    grid: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=V,V,V",
            help="A parameter of the objective, of a strategy or of the optimiser and the values "
            "to try, as in strategies.model-mixup.beta=0.05,0.1,0.5 or "
            "training.learning_rate=1e-4,1e-3; two options try all pairs of their values.",
        ),
    ],
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Seeds of the runs.")] = "0",
    protocol: ProtocolOption = None,
    data_root: DataRootOption = None,
    out: OutOption = RUNS,
    device: DeviceOption = "auto",
    jobs: JobsOption = None,
    threads: ThreadsOption = None,
    assignments: SetOption = None,
    on_bad_tile: OnBadOption = "stop",
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File for the choice and the scores of the grid; the default is "
            "OUT/tuning/SCENARIO/PROTOCOL/METHOD.json.",
        ),
    ] = None,
    init: InitOption = None,
) -> None:
    """Choose hyper-parameters by the probes' validation splits, never by a test split.

    Every setting of the grid is run as in a sweep. The score of a setting is the mean over seeds
    and probes of the micro-mAP on the validation split after the last task. The setting with the
    highest score is chosen; of settings with equal scores, the first one in the grid.
    """
    from rscl_bench.console import print_failures, print_tuning
    from rscl_bench.resolve import parse_assignments
    from rscl_bench.sweeps.selection import parse_grid, split_seeds

    with lasting_output(), _interruptible():
        announce_code(scenario, method)
        try:
            tuning = api.tune(
                scenario,
                method,
                parse_grid(grid),
                seeds=split_seeds(seeds),
                protocol=protocol,
                set=parse_assignments(assignments or ()),
                data_root=data_root,
                out=out,
                device=device,
                jobs=jobs,
                threads=threads,
                on_bad_tile=on_bad_tile,
                store=store,
                init=init,
            )
        except api.GridError as error:
            print_failures(error.runs)
            raise
        print_tuning(tuning)
        print(f"stored: {store or api.tuning_path(tuning, out)}")


@app.command()
def study(
    file: Annotated[Path, typer.Argument(help="The study's TOML.", exists=True)],
    stages: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Stages to run; the default is all, in their order."),
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Run nothing; print what is done and what is left.")
    ] = False,
    data_root: DataRootOption = None,
    out: OutOption = RUNS,
    device: DeviceOption = "auto",
    jobs: JobsOption = None,
    threads: ThreadsOption = None,
    keep_encoders: KeepEncodersOption = False,
) -> None:
    """Run the sweeps and grids that a TOML declares, and publish their records and choices.

    Published runs are not run again, on whatever machine they were made, so the same command
    resumes the study anywhere. All methods of one seed are meant to run on one machine.
    """
    from rscl_bench.console import print_failures, print_stage
    from rscl_bench.sweeps.selection import split_list

    chosen = split_list("--stages", stages) if stages is not None else []
    failed = False
    with lasting_output(), _interruptible():
        for result in api.study(
            file,
            stages=chosen,
            only_plan=plan,
            data_root=data_root,
            out=out,
            device=device,
            jobs=jobs,
            threads=threads,
            keep_encoders=keep_encoders,
            verbose=not plan,
        ):
            print_failures(result.runs)
            print_stage(result)
            failed |= any(run.state == "failed" for run in result.runs)
    if failed:
        raise typer.Exit(1)


@contextmanager
def _interruptible(force: bool = False) -> Iterator[None]:
    """On a signal, print how to resume the other runs, and exit."""
    try:
        yield
    except KeyboardInterrupt as error:
        line = (
            f"{how_interrupted(error).partition(';')[0]}; all records stay, and the same command"
            f"{' without --force' if force else ''} resumes the other runs from their checkpoints"
        )
        exit_with(exit_status(error), line)
