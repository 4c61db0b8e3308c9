"""The commands that train one run: `run` and `extend`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rscl_bench import api
from rscl_bench.cli.application import app
from rscl_bench.cli.options import (
    RUNS,
    CheckpointOption,
    DataRootOption,
    DeviceOption,
    ForceOption,
    InitOption,
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
from rscl_bench.cores import set_threads
from rscl_bench.output import lasting_output


@app.command()
def run(
    scenario: ScenarioOption,
    method: MethodOption,
    protocol: ProtocolOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    data_root: DataRootOption = None,
    out: OutOption = RUNS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    assignments: SetOption = None,
    checkpoint_minutes: CheckpointOption = 10.0,
    on_bad_tile: OnBadOption = "stop",
    force: ForceOption = False,
    keep_state: KeepStateOption = None,
    keep_encoders: KeepEncodersOption = False,
    init: InitOption = None,
    log: Annotated[
        list[str] | None,
        typer.Option(
            help="Log losses, speed and scores: tensorboard, wandb, mlflow or csv; may be repeated."
        ),
    ] = None,
    watch_epochs: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Probe the encoder every N epochs on the validation splits, to watch the run; "
            "these scores are in no record.",
        ),
    ] = None,
) -> None:
    """Train one method through a scenario, probe after each task, write the record.

    The same command resumes an interrupted run from its last checkpoint, to the same bits as
    without the interruption. On SIGINT (Ctrl-C), SIGTERM, SIGUSR1, SIGHUP and SIGQUIT the run
    finishes its step and writes a checkpoint; the exit status is then 128 plus the number of the
    signal.
    """
    from rscl_bench.console import print_run
    from rscl_bench.resolve import parse_assignments

    if threads is not None:
        set_threads(threads)  # before the libraries are loaded
    with lasting_output():
        announce_code(scenario, method)
        record = api.run(
            scenario,
            method,
            protocol=protocol,
            seed=seed,
            set=parse_assignments(assignments or ()),
            data_root=data_root,
            out=out,
            device=device,
            threads=threads,
            checkpoint_minutes=checkpoint_minutes,
            on_bad_tile=on_bad_tile,
            force=force,
            keep_state=keep_state,
            keep_encoders=keep_encoders,
            init=init,
            log=log or (),
            watch_epochs=watch_epochs,
        )
        print_run(record)
        print(f"record: {api.run_folder(record, out) / 'record.json'}")


@app.command()
def extend(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder of a finished run, or its record.json.", exists=True
        ),
    ],
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Dataset of the next task.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Split of the dataset.")] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the task; the dataset's name if left out.")
    ] = None,
    tile_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of the tiles in pixels; the last task's if left out."),
    ] = None,
    cut: Annotated[
        Literal["grid", "whole"] | None,
        typer.Option(
            help="Cut images into tiles, or resize each to one tile; as the last task if left out."
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(metavar="A,B,C", help="Bands in the order of the encoder's input."),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Option of the dataset."),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(
            "--scenario",
            help="In place of --dataset: a scenario whose first tasks are those of the run.",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option("--method", help="The TOML of the run's method, if it names classes by path."),
    ] = None,
    data_root: DataRootOption = None,
    out: OutOption = RUNS,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
    checkpoint_minutes: CheckpointOption = 10.0,
    on_bad_tile: OnBadOption = "stop",
    force: ForceOption = False,
    keep_state: KeepStateOption = None,
    keep_encoders: KeepEncodersOption = False,
) -> None:
    """Train a finished run on a new archive, from its last state, and probe old and new domains.

    The run's protocol, method, settings and seed hold. The archives of its tasks are not needed.
    Weights and scores are those of a stream that was run in one go. The record of the longer stream
    names the run and the digest of its state.
    """
    from rscl_bench.console import print_run
    from rscl_bench.resolve import parse_assignments
    from rscl_bench.sweeps.selection import split_list

    if threads is not None:
        set_threads(threads)  # before the libraries are loaded
    with lasting_output():
        announce_code(*filter(None, (scenario, method)))
        record = api.extend(
            run,
            dataset=dataset,
            split=split,
            name=name,
            tile_size=tile_size,
            cut=cut,
            bands=None if bands is None else split_list("--bands", bands),
            options=parse_assignments(options, "--option") if options else None,
            scenario=scenario,
            method=method,
            data_root=data_root,
            out=out,
            device=device,
            threads=threads,
            checkpoint_minutes=checkpoint_minutes,
            on_bad_tile=on_bad_tile,
            force=force,
            keep_state=keep_state,
            keep_encoders=keep_encoders,
        )
        print_run(record)
        print(f"record: {api.run_folder(record, out) / 'record.json'}")
