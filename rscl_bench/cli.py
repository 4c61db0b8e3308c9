"""The command line: parses options, calls `rscl_bench.api` and prints the results."""

import errno
import io
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import typer
from typer.core import TyperGroup

from rscl_bench import api
from rscl_bench.cores import let_threads_sleep, set_threads
from rscl_bench.errors import RsclError, SpecError, unknown
from rscl_bench.interruption import Interrupted, raising
from rscl_bench.output import discard_unwritten, lasting_output, reader_gone
from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    from rscl_bench.archives.fetching import ArchiveToFetch

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Commands(TyperGroup):
    """Prints a user's error as one sentence without a traceback, and exits with status 1.

    Every signal that ends a command is an exception within it, so that its ``finally`` blocks
    remove temporary files and show the cursor. The exit status is then 128 plus the number of the
    signal.
    """

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        let_threads_sleep()
        with raising() as watch:
            try:
                return super().invoke(ctx)
            except (KeyboardInterrupt, SystemExit, RsclError, OSError) as error:
                came = watch.signal
                watch.signal = came or signal.SIGINT  # the next signal ends the process at once
                if came is not None and not isinstance(error, KeyboardInterrupt):
                    # An error that the signal caused, such as the end of a worker that got it too.
                    error = Interrupted(came)
                _explain(error)
                raise


def _explain(error: BaseException) -> None:
    """Exit with a line on standard error, if the error is none of the code."""
    if isinstance(error, KeyboardInterrupt):
        _exit(_status(error), _interrupted(error))
    if isinstance(error, RsclError):
        _exit(1, f"error: {error}")
    if isinstance(error, SystemExit):
        _exit(1, f"error: Code outside of rscl-bench called sys.exit({error.code!r}).")
    if isinstance(error, OSError) and error.filename is not None:
        _exit(1, f"error: {error.filename} cannot be used ({error.strerror}).")
    if isinstance(error, BrokenPipeError) and reader_gone(sys.stdout):
        _exit(128 + signal.SIGPIPE)  # as other programs
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:  # all other files have names
        _exit(1, f"error: The output cannot be written ({error.strerror}).")


def _exit(status: int, line: str = "") -> NoReturn:
    """Print a line on standard error, if it can be written, and exit."""
    if line:
        with suppress(OSError):  # the terminal may be gone
            print(line, file=sys.stderr, flush=True)
    raise typer.Exit(status)


def _status(error: KeyboardInterrupt) -> int:
    return error.status if isinstance(error, Interrupted) else 128 + signal.SIGINT


def _interrupted(error: KeyboardInterrupt) -> str:
    where = error.where if isinstance(error, Interrupted) else ""
    advice = f"the same command resumes from {where}" if where else "nothing was recorded"
    return f"interrupted by {signal.Signals(_status(error) - 128).name}; {advice}"


app = typer.Typer(
    cls=Commands,
    name="rscl-bench",
    help="Continual self-supervised learning in remote sensing, measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(
    help="Fetch, pack, verify or sketch the archives of a scenario; look after the cache."
)
leaderboard_app = typer.Typer(help="Tables from run records.")
app.add_typer(data_app, name="data", no_args_is_help=True)
app.add_typer(leaderboard_app, name="leaderboard", no_args_is_help=True)

ScenarioOption = Annotated[
    str, typer.Option("--scenario", help="A known scenario, or a path to a TOML.")
]
DataRootOption = Annotated[
    Path | None,
    typer.Option(
        "--data-root",
        envvar="RSCL_DATA_ROOT",
        help="Folder of the real archives; without it, synthetic sketches are rendered.",
    ),
]
MethodOption = Annotated[str, typer.Option("--method", help="A known method, or a path to a TOML.")]
ProtocolOption = Annotated[
    str | None,
    typer.Option("--protocol", help="A protocol of the scenario; its default if left out."),
]
OutOption = Annotated[Path, typer.Option("--out", help="Folder for records and encoders.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
SetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a field of the protocol (training.epochs=5), of the objective "
        "(objective.mask_ratio=0.6), of a strategy (strategies.data-mixup.alpha=1) or of the "
        "optimiser (training.learning_rate=1e-4).",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Run recorded runs again.")]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        metavar="N",
        help="How many runs train at a time; the runs share the cores evenly. The default is one "
        "run per core, with one thread each, or one run on a GPU. Each run needs its own memory.",
    ),
]
ThreadsOption = Annotated[
    int | None,
    typer.Option(
        "--threads",
        min=1,
        metavar="N",
        help="CPU threads of each run. The default is all cores for one run, and an even share of "
        "the cores in a sweep. The number of threads changes the last bits of results and is "
        "recorded, but is no part of a run's identity.",
    ),
]
OnBadOption = Annotated[
    Literal["stop", "skip"],
    typer.Option(
        "--on-bad-tile",
        help="Whether an image that cannot be used stops packing, or is left out, counted and "
        "recorded.",
    ),
]
KeepStateOption = Annotated[
    bool | None,
    typer.Option(
        "--keep-state/--no-keep-state",
        help="Whether the last state is kept beside the record, so that `extend` can go on from "
        "it. The default keeps a state of at most 64 MiB.",
        show_default=False,
    ),
]
InitOption = Annotated[
    Path | None,
    typer.Option(
        "--init",
        metavar="FILE",
        help="Weights that the encoder starts from: an encoder.safetensors of a run, or a state "
        "dict of timm or torchvision (.safetensors, or a .pth of tensors alone).",
    ),
]
CheckpointOption = Annotated[
    float,
    typer.Option(
        "--checkpoint-minutes",
        min=0,
        help="Minutes between checkpoints within a task; 0 for a checkpoint after every step. "
        "The run writes a checkpoint after every task too.",
    ),
]
RUNS = Path("runs")


def _print_version(wanted: bool) -> None:
    if wanted:
        import rscl_bench

        print(f"rscl-bench {rscl_bench.__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Continual self-supervised learning in remote sensing, measured."""


def _announce_code(*names: str) -> None:
    """Say which files of code the TOMLs of this command name, before the code is run."""
    from rscl_bench.declarations import code_files

    for file in code_files(*names):
        print(f"note: this command runs the code of {file}", file=sys.stderr)


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
    init: InitOption = None,
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
        _announce_code(scenario, method)
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
            init=init,
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
        _announce_code(*filter(None, (scenario, method)))
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
        )
        print_run(record)
        print(f"record: {api.run_folder(record, out) / 'record.json'}")


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
        _announce_code(scenario, *listed)
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
        _announce_code(scenario, method)
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
            verbose=not plan,
        ):
            print_failures(result.runs)
            print_stage(result)
            failed |= any(run.state == "failed" for run in result.runs)
    if failed:
        raise typer.Exit(1)


@app.command(name="list")
def list_names(
    markdown: Annotated[
        str | None,
        typer.Option(metavar="KIND", help="Print the table of one kind, such as methods."),
    ] = None,
) -> None:
    """List scenarios, methods, objectives, strategies, probes, datasets, backbones, sensors."""
    from rscl_bench import catalogue
    from rscl_bench.console import print_names

    if markdown is not None:
        print(catalogue.markdown(markdown), end="")
        return
    for title, summaries in catalogue.families():
        print_names(title, list(summaries.items()))


@app.command()
def show(
    name: Annotated[
        str,
        typer.Argument(
            help="A name, a path to a TOML, or KIND:NAME, such as strategy:ewc, where several "
            "things have one name."
        ),
    ],
    scenario: Annotated[
        str | None,
        typer.Option("--scenario", help="For a method: show the values of a run of this scenario."),
    ] = None,
    protocol: ProtocolOption = None,
    assignments: SetOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the values of a method or scenario, or the parameters of a component.

    A method is printed as a recipe, with the origin of each value: the recipe, the protocol, --set
    or the component's own default. Without --scenario no protocol's values are among them.
    A component is printed with type, default and meaning of each parameter. Classes of TOMLs and
    packages are imported, which runs their code.
    """
    from rscl_bench.resolve import parse_assignments

    _announce_code(*filter(None, (name.removeprefix("method:"), scenario)))
    shown = api.explain(
        name, scenario=scenario, protocol=protocol, set=parse_assignments(assignments or ())
    )
    if as_json:
        data = [one.data for one in shown]
        print(json.dumps(data[0] if len(data) == 1 else data, indent=2))
        return
    print("\n".join(one.text for one in shown), end="")
    if len(shown) > 1:
        several = [f"{one.kind}:{name}" for one in shown]
        print(
            f"\n'{name}' is the name of {len(several)} things; "
            f"`rscl-bench show {several[0]}` shows one of {', '.join(several)}."
        )


@app.command()
def new(
    kind: Annotated[
        Literal["dataset", "method", "objective", "probe", "scenario", "strategy"],
        typer.Argument(help="What to begin."),
    ],
    name: Annotated[
        str, typer.Argument(help="Its name: small letters, digits and hyphens, as in my-probe.")
    ],
    into: Annotated[Path, typer.Option(help="Folder to write to; made where absent.")] = Path(),
) -> None:
    """Write a working skeleton with its test, to begin a component from.

    No file is replaced. The command prints the files, and the commands that run and test them.
    """
    skeleton = api.new(kind, name, into)
    for path in skeleton.files:
        print(f"wrote {path}")
    for command in skeleton.commands:
        print(f"next: {command}")


@data_app.command()
def prepare(
    scenario: ScenarioOption,
    data_root: DataRootOption = None,
    on_bad_tile: OnBadOption = "stop",
) -> None:
    """Pack all tiles of a scenario, so that runs start without packing."""
    _announce_code(scenario)
    stores = api.open_tiles(scenario, data_root=data_root, on_bad_tile=on_bad_tile)
    for name, store in stores.items():
        shape = "×".join(map(str, store.tiles.shape[1:]))
        print(f"{name}: {len(store)} tiles of {shape} {store.tiles.dtype}, {store.blank} all zero")
        if store.missing_share:
            print(f"{name}: {store.missing_share:.2%} declared as missing (nodata), filled")
        if store.skipped:
            print(f"{name}: left out {len(store.skipped)}: {', '.join(store.skipped)}")


@data_app.command()
def fetch(
    scenario: Annotated[
        str | None, typer.Argument(help="A known scenario, or a path to a TOML.")
    ] = None,
    named: Annotated[
        str | None, typer.Option("--scenario", help="The scenario, as other commands take it.")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(
            "--data-root", envvar="RSCL_DATA_ROOT", help="Folder to download the archives into."
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Agree with the licences that are shown; do not ask.")
    ] = False,
) -> None:
    """Download the archives of a scenario that their publishers serve without a login.

    Licence and size of each archive are shown first. The same command resumes an interrupted
    download. Other archives are fetched by hand: the command says where, under which licence and
    into which folder, and its exit status is then 1. No other command downloads anything.
    """
    given = [name for name in (scenario, named) if name is not None]
    if len(given) != 1:
        raise SpecError("Name one scenario, such as `rscl-bench data fetch rs4`.")
    _announce_code(*given)

    def agree(archives: "list[ArchiveToFetch]") -> bool:
        for line in (line for archive in archives for line in archive.described()):
            print(line)
        try:
            return yes or typer.confirm("Download these archives under their licences?")
        except typer.Abort as error:
            if sys.stdin.isatty():
                raise
            raise SpecError(
                "Nobody answered, so nothing was downloaded; add --yes to agree with the licences."
            ) from error

    try:
        api.fetch(given[0], data_root=data_root, agree=agree)
    except Interrupted as error:
        raise Interrupted(error.signal, "what has arrived") from error


@data_app.command()
def verify(
    scenario: ScenarioOption,
    data_root: DataRootOption = None,
    on_bad_tile: OnBadOption = "stop",
) -> None:
    """Check that the archives of a scenario are complete and its packed tiles unchanged."""
    _announce_code(scenario)
    from rscl_bench.tiles.store import verify as verify_bytes

    stores = api.open_tiles(scenario, data_root=data_root, on_bad_tile=on_bad_tile)
    for name, store in stores.items():
        verify_bytes(store.path)
        print(f"{name}: {len(store)} tiles, SHA-256 {store.digest}, source {store.source_digest}")


@data_app.command(name="list")
def list_cache() -> None:
    """List packed tiles, sketches and unfinished work in the cache, with their sizes."""
    from rscl_bench.console import print_cache
    from rscl_bench.tiles.cache import cache_folder

    print_cache(api.cache_entries(), cache_folder())


@data_app.command()
def clean(
    everything: Annotated[bool, typer.Option("--all", help="Remove everything.")] = False,
    dataset: Annotated[
        str | None, typer.Option(metavar="NAME", help="Remove tiles and sketch of one dataset.")
    ] = None,
    unused: Annotated[
        bool,
        typer.Option(
            "--unused",
            help="Remove what no run needs: of older versions, of archives that are gone, and "
            "unfinished work.",
        ),
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove packed tiles and sketches from the cache; runs make them again when needed."""
    from rscl_bench.console import human_size, print_cache
    from rscl_bench.tiles.cache import cache_folder

    if everything + (dataset is not None) + unused != 1:
        raise SpecError("Say what to remove: give one of --all, --dataset NAME and --unused.")
    found = api.cache_entries()
    names = {entry.dataset for entry in found}
    if dataset is not None and dataset not in names:
        raise unknown("dataset in the cache", dataset, names)
    chosen = [e for e in found if everything or (unused and e.unused) or e.dataset == dataset]
    print_cache(chosen, cache_folder())
    if chosen and (yes or typer.confirm("Remove these folders?")):
        api.clean_cache(chosen)
        print(f"removed: {human_size(sum(entry.size for entry in chosen))}")


@data_app.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="A ZIP or TAR file.", exists=True)],
    into: Annotated[Path, typer.Option(help="Folder to make; it must not exist, or be empty.")],
    max_ratio: Annotated[
        int,
        typer.Option(min=1, help="Times its own size, plus 4 GiB, that the archive may unpack to."),
    ] = 20,
) -> None:
    """Unpack a downloaded archive; refuse one that writes elsewhere or grows too far."""
    from rscl_bench.archives.unpack import unpack as unpacked

    into = user_path(into, "The folder")
    count = unpacked(archive, into, max_ratio)
    print(f"{count} files in {into}")


@data_app.command()
def sketch(
    scenario: ScenarioOption,
    out: Annotated[
        Path, typer.Option(help="Folder to write to; the data root is below it, as printed.")
    ],
) -> None:
    """Render a scenario's synthetic archives, in the true layouts, into a folder."""
    _announce_code(scenario)
    print(f"sketch archives: {api.render_sketches(scenario, out)}")


@leaderboard_app.command()
def build(
    records: Annotated[
        list[Path], typer.Argument(help="Folders or files of run records.", exists=True)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for the tables; the default is the folder leaderboards in the first "
            "folder of records.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Turn run records into tables per scenario, protocol and version of this package.

    A table that holds runs outside the given records is not replaced.
    """
    _print_foreign(records)
    for path in api.write_leaderboards(records, out):
        print(path)


@leaderboard_app.command()
def validate(
    records: Annotated[
        list[Path], typer.Argument(help="Folders or files of run records.", exists=True)
    ],
) -> None:
    """Check run records, and recompute every score from the scores of their images.

    The exit status is 0 if all records are valid, 1 if a record is refused, and 3 if none is
    refused but a record has no image scores beside it, so that its scores cannot be recomputed.
    """
    _print_foreign(records)
    verdicts = api.validate(records)
    counts = dict.fromkeys(("valid", "not checkable", "refused"), 0)
    for path, verdict in verdicts.items():
        counts[verdict.state] += 1
        for note in verdict.notes:
            print(f"note: {path}: {note}", file=sys.stderr)
        if verdict.state == "refused":
            print(f"refused: {verdict.reason}", file=sys.stderr)
        else:
            print(f"{path}: {verdict.state}{': ' if verdict.reason else ''}{verdict.reason}")
    print(f"{len(verdicts)} records: {', '.join(f'{n} {state}' for state, n in counts.items())}")
    if counts["refused"]:
        raise typer.Exit(1)
    if counts["not checkable"]:
        raise typer.Exit(3)


@leaderboard_app.command()
def power(
    records: Annotated[
        list[Path], typer.Argument(help="Folders or files of run records.", exists=True)
    ],
    seeds: Annotated[
        str, typer.Option(metavar="3,5,8", help="Numbers of seeds to compare.")
    ] = "3,5,8,12,20",
) -> None:
    """Say how large a difference between two methods a number of seeds can separate.

    From the spread over seeds of the records at hand: the difference in percentage points that is
    found with a probability of 80 %, by one comparison at 5 %, and after Holm's correction for all
    pairs of the table.
    """
    from rscl_bench.console import print_power
    from rscl_bench.sweeps.selection import split_seeds

    _print_foreign(records)
    print_power(api.power(records, split_seeds(seeds)))


def _print_foreign(records: list[Path]) -> None:
    """Say which JSON files are left out, since they are no run records."""
    foreign = api.foreign_files(records)
    if foreign:
        shown = ", ".join(map(str, foreign[:3])) + (", …" if len(foreign) > 3 else "")
        print(
            f"note: {len(foreign)} JSON file{'s are' if len(foreign) > 1 else ' is'} no run record "
            f"and left out: {shown}",
            file=sys.stderr,
        )


@contextmanager
def _interruptible(force: bool = False) -> Iterator[None]:
    """On a signal, print how to resume the other runs, and exit."""
    try:
        yield
    except KeyboardInterrupt as error:
        line = (
            f"{_interrupted(error).partition(';')[0]}; all records stay, and the same command"
            f"{' without --force' if force else ''} resumes the other runs from their checkpoints"
        )
        _exit(_status(error), line)


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # for terminals that cannot show "–"
    status: str | int | None = 0
    try:
        app()
    except SystemExit as ended:
        status = ended.code
    lost = discard_unwritten(sys.stdout)
    if lost is not None and not status:
        broken = isinstance(lost, BrokenPipeError)
        status = 128 + signal.SIGPIPE if broken else 1
        if not broken:
            with suppress(OSError):
                reason = lost.strerror or lost
                print(f"error: The output cannot be written ({reason}).", file=sys.stderr)
    discard_unwritten(sys.stderr)
    sys.exit(status)


if __name__ == "__main__":
    main()
