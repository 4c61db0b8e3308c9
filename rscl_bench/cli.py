"""The command line; nothing heavy is imported before a command runs."""

import io
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from rscl_bench.errors import ArchiveError, RsclError

if TYPE_CHECKING:
    from rscl_bench.console import Split
    from rscl_bench.engine.prepare import PreparedRun
    from rscl_bench.spec import OnBadTile, RunSpec, Scenario
    from rscl_bench.sweep.pool import Run
    from rscl_bench.sweep.selection import PlannedRun


class Commands(TyperGroup):
    """Gives a user's error as one sentence and exit status 1, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except RsclError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(1) from error
        except KeyboardInterrupt as error:
            goes_on = f"the same command goes on from {error}"
            rest = goes_on if error.args else "nothing was recorded"
            print(f"interrupted; {rest}", file=sys.stderr)
            raise typer.Exit(getattr(error, "status", 130)) from error


app = typer.Typer(
    cls=Commands,
    name="rscl-bench",
    help="Continual self-supervised learning in remote sensing, measured.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
data_app = typer.Typer(help="Pack, verify or sketch the archives of a scenario.")
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
        "(objective.mask_ratio=0.6) or of a strategy (strategies.data-mixup.alpha=1).",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Run again what is recorded.")]
JobsOption = Annotated[
    int | None,
    typer.Option(
        "--jobs",
        min=1,
        metavar="N",
        help="How many runs at a time; they share the cores evenly. By default one run per core, "
        "with one thread each, or one run on a GPU. Each run takes its own memory. The number of "
        "threads changes the last bits of results.",
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
RUNS = Path("runs")


@app.command()
def run(
    scenario: ScenarioOption,
    method: MethodOption,
    protocol: ProtocolOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    data_root: DataRootOption = None,
    out: OutOption = RUNS,
    device: DeviceOption = "auto",
    assignments: SetOption = None,
    checkpoint_minutes: Annotated[
        float,
        typer.Option(
            min=0,
            help="Minutes between checkpoints within a task; 0 for one after every step. There is "
            "one after every task too.",
        ),
    ] = 10.0,
    on_bad_tile: OnBadOption = "stop",
    force: ForceOption = False,
) -> None:
    """Train one method through a scenario, probe after each task, write the record.

    A run that was interrupted goes on from its last checkpoint when the same command is given
    again, and ends in the same bits. SIGINT (Ctrl-C), SIGTERM and SIGUSR1 let it finish its step
    and write a checkpoint; the exit status is then 128 and the signal's number.
    """
    from rscl_bench.console import print_run, reporter
    from rscl_bench.declarations import load_method, load_scenario
    from rscl_bench.resolve import resolve_run

    spec = resolve_run(
        load_scenario(scenario), load_method(method), protocol, seed, tuple(assignments or ())
    )
    print(_edition_line(spec.scenario, data_root), flush=True)
    from rscl_bench.engine.checkpointing.files import FOLDER, remove_checkpoints
    from rscl_bench.engine.prepare import check_writable, run_folder
    from rscl_bench.engine.run import execute
    from rscl_bench.results.record import read_record

    check_writable(out)  # before an hour of packing, not after it
    with reporter() as report:
        opened, _, _ = _open(spec, data_root, device, report, on_bad_tile)
        folder = run_folder(out, opened)
        path = folder / "record.json"
        known = path.is_file() and not force
        if known:
            record = read_record(path)
            remove_checkpoints(folder / FOLDER)  # of a run that ended just after its record
        else:
            seconds = 60 * checkpoint_minutes
            record = execute(opened, folder, report, interval=seconds, force=force)
    print_run(record)
    print(f"{'already recorded (--force runs it again)' if known else 'record'}: {path}")


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
    assignments: SetOption = None,
    on_bad_tile: OnBadOption = "stop",
    force: ForceOption = False,
) -> None:
    """Run methods × seeds, several at a time, and build their leaderboard.

    All methods run with the first seed, then with the next, so that a sweep that was broken off
    compares methods already. What is recorded is skipped: after an interruption the same command
    goes on. A run that fails stops no other.
    """
    from rscl_bench.console import print_failures
    from rscl_bench.declarations import load_method, load_scenario
    from rscl_bench.sweep.selection import method_runs, split_list, split_seeds

    with _interruptible(force):
        planned = method_runs(
            load_scenario(scenario),
            [load_method(name) for name in split_list("--methods", methods)],
            split_seeds(seeds),
            protocol,
            assignments or (),
        )
        where = (data_root, out, device, jobs, on_bad_tile)
        runs = _run_all(planned, *where, force, "method", "test")
        print_failures(runs)
        from rscl_bench.leaderboard.build import build_leaderboard

        recorded = [run.record_path for run in runs if run.record is not None]
        for path in build_leaderboard(recorded, out / "leaderboards") if recorded else ():
            print(path)
    if len(recorded) < len(runs):
        raise typer.Exit(1)


@app.command()
def tune(
    scenario: ScenarioOption,
    method: MethodOption,
    grid: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=V,V,V",
            help="A parameter of the objective or of a strategy and the values to try, as in "
            "strategies.model-mixup.beta=0.05,0.1,0.5; given twice, all pairs are tried.",
        ),
    ],
    seeds: Annotated[str, typer.Option(metavar="0,1,2", help="Seeds of the runs.")] = "0",
    protocol: ProtocolOption = None,
    data_root: DataRootOption = None,
    out: OutOption = RUNS,
    device: DeviceOption = "auto",
    jobs: JobsOption = None,
    assignments: SetOption = None,
    on_bad_tile: OnBadOption = "stop",
    store: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the choice and the grid's results go; by default "
            "OUT/tuning/SCENARIO/PROTOCOL/METHOD.json.",
        ),
    ] = None,
) -> None:
    """Choose hyper-parameters by the probes' validation splits, never by a test split.

    Runs every setting of the grid as a sweep does, scores it by the mean over seeds and probes of
    the micro-mAP on the validation split after the last task, and takes the highest; of equals,
    the first of the grid.
    """
    from rscl_bench.console import print_failures, print_tuning
    from rscl_bench.declarations import load_method, load_scenario
    from rscl_bench.results.tuning import FOLDER, make_tuning, write_tuning
    from rscl_bench.sweep.selection import grid_runs, split_seeds

    with _interruptible():
        planned = grid_runs(
            load_scenario(scenario),
            load_method(method),
            grid,
            split_seeds(seeds),
            protocol,
            assignments or (),
        )
        where = (data_root, out, device, jobs, on_bad_tile)
        runs = _run_all(planned, *where, False, "setting", "val")
        print_failures(runs)
        if any(run.record is None for run in runs):
            print("nothing was chosen: every setting must be scored", file=sys.stderr)
            raise typer.Exit(1)
        settings: dict[str, list[Any]] = {}
        for run in runs:
            settings.setdefault(run.label, []).append(run.record)
        keys = [axis.partition("=")[0].strip() for axis in grid]
        tuning = make_tuning(keys, list(settings.values()))
        path = store or out / FOLDER / tuning.path()
        write_tuning(tuning, path)
        print_tuning(tuning)
        print(f"stored: {path}")


@app.command(name="list")
def list_names() -> None:
    """List scenarios, methods, objectives, strategies, probes, datasets and backbones."""
    import tomllib

    from rscl_bench import registry
    from rscl_bench.console import print_names
    from rscl_bench.declarations import DeclarationKind, declarations

    declared: tuple[DeclarationKind, ...] = ("scenarios", "methods")
    for declaration in declared:
        rows = [
            (name, str(tomllib.loads(path.read_text(encoding="utf-8"))["title"]))
            for name, path in declarations(declaration).items()
        ]
        print_names(declaration, rows)
    for kind in registry.BUILTIN:
        known = registry.entries(kind)
        for family in sorted({entry.family for entry in known.values()}):
            rows = [(name, e.summary) for name, e in known.items() if e.family == family]
            print_names(f"{kind}, {family}" if family else kind, rows)


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A scenario or method, or a path to a TOML.")],
) -> None:
    """Print the resolved spec of a scenario or method as JSON, defaults filled in."""
    import json

    from rscl_bench.declarations import load_any

    print(json.dumps(load_any(name).model_dump(mode="json"), indent=2))


@data_app.command()
def prepare(
    scenario: ScenarioOption,
    data_root: DataRootOption = None,
    on_bad_tile: OnBadOption = "stop",
) -> None:
    """Pack all tiles of a scenario, so that runs start at once."""
    for name, store in _open_stores(scenario, data_root, on_bad_tile):
        shape = "×".join(map(str, store.tiles.shape[1:]))
        print(f"{name}: {len(store)} tiles of {shape} {store.tiles.dtype}, {store.blank} all zero")
        if store.skipped:
            print(f"{name}: left out {len(store.skipped)}: {', '.join(store.skipped)}")


@data_app.command()
def verify(
    scenario: ScenarioOption,
    data_root: DataRootOption = None,
    on_bad_tile: OnBadOption = "stop",
) -> None:
    """Check that a scenario's archives are complete and its packed tiles are what was packed."""
    from rscl_bench.tiles.store import verify as verify_bytes

    for name, store in _open_stores(scenario, data_root, on_bad_tile):
        verify_bytes(store.path)
        print(f"{name}: {len(store)} tiles, SHA-256 {store.digest}")


@data_app.command()
def unpack(
    archive: Annotated[Path, typer.Argument(help="A ZIP or TAR file.", exists=True)],
    into: Annotated[Path, typer.Option(help="Folder to make; it must not exist, or be empty.")],
) -> None:
    """Unpack a downloaded archive; one that would write elsewhere or grow too far is refused."""
    from rscl_bench.archives.unpack import unpack as unpacked

    count = unpacked(archive, into)
    print(f"{count} files in {into}")


@data_app.command()
def sketch(
    scenario: ScenarioOption,
    out: Annotated[
        Path, typer.Option(help="Folder to write to; the data root is below it, as printed.")
    ],
) -> None:
    """Render a scenario's synthetic archives, in the true layouts, into a folder."""
    from rscl_bench.archives.sketch import datasets_of, render
    from rscl_bench.console import reporter
    from rscl_bench.declarations import load_scenario

    with reporter() as report:
        root = render(datasets_of(load_scenario(scenario)), out, report.progress)
    print(f"sketch archives: {root}")


@leaderboard_app.command()
def build(
    records: Annotated[
        list[Path], typer.Argument(help="Folders or files of run records.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the tables.")] = Path("leaderboards"),
) -> None:
    """Turn run records into one CSV and one Markdown table per scenario and protocol."""
    from rscl_bench.leaderboard.build import build_leaderboard

    for path in build_leaderboard(records, out):
        print(path)


@leaderboard_app.command()
def validate(
    records: Annotated[
        list[Path], typer.Argument(help="Folders or files of run records.", exists=True)
    ],
) -> None:
    """Recompute every score of run records from the scores of their images."""
    from rscl_bench.leaderboard.collect import record_files
    from rscl_bench.results.validation import refusals

    found = refusals(record_files(records))
    for path, reason in found.items():
        print(f"{path}: valid" if reason is None else f"refused: {reason}")
    refused = sum(reason is not None for reason in found.values())
    print(f"{len(found) - refused} of {len(found)} records are valid")
    if refused:
        raise typer.Exit(1)


def _edition_line(scenario: "Scenario", data_root: Path | None) -> str:
    if data_root is not None:
        return f"Archives of {scenario.name} from {data_root}."
    return (
        f"Sketch edition of {scenario.name}: small synthetic images, no result about the real "
        "world. For real archives give --data-root DIR or set RSCL_DATA_ROOT."
    )


def _run_all(
    planned: "list[PlannedRun]",
    data_root: Path | None,
    out: Path,
    device: str,
    jobs: int | None,
    on_bad_tile: "OnBadTile",
    force: bool,
    column: str,
    split: "Split",
) -> "list[Run]":
    """Pack once, then run what is not recorded."""
    from rscl_bench.console import reporter, sweep_view
    from rscl_bench.engine.prepare import check_writable
    from rscl_bench.sweep.plan import plan
    from rscl_bench.sweep.pool import run_all, share_cores

    first = planned[0].spec
    print(_edition_line(first.scenario, data_root), flush=True)
    check_writable(out)
    with reporter() as report:
        opened, root, cache = _open(first, data_root, device, report, on_bad_tile)
    jobs, threads = share_cores(jobs, opened.device.torch.type)
    runs = plan(planned, opened, root, cache, threads, out, force, on_bad_tile)
    waiting = sum(run.state == "waiting" for run in runs)
    print(
        f"{len(runs)} runs: {len(runs) - waiting} recorded before, {waiting} to do; {jobs} at a "
        f"time, {threads} thread{'' if threads == 1 else 's'} each.",
        flush=True,
    )
    with sweep_view(runs, column, split) as changed:
        run_all(runs, jobs, changed)
    return runs


class Terminated(KeyboardInterrupt):
    """SIGTERM, so that it ends a sweep as Ctrl-C does."""


@contextmanager
def _interruptible(force: bool = False) -> Iterator[None]:
    """Say how to go on after Ctrl-C or SIGTERM, and exit with the status that shells expect."""

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt as error:
        print(
            "interrupted; what is recorded stays, and the same command"
            f"{' without --force' if force else ''} goes on with the rest, from checkpoints",
            file=sys.stderr,
        )
        raise typer.Exit(143 if isinstance(error, Terminated) else 130) from error
    finally:
        signal.signal(signal.SIGTERM, before)


def _open(
    spec: "RunSpec", data_root: Path | None, device: str, report: Any, on_bad_tile: "OnBadTile"
) -> "tuple[PreparedRun, Path, Path]":
    """Open a run's tiles, packing them first where needed; returns data root and cache too."""
    from rscl_bench.engine.prepare import open_run

    edition, root, cache = _data(spec.scenario, data_root, report)
    opened = open_run(spec, edition, root, cache, device, report.progress, on_bad_tile)
    for name, store in opened.named_stores().items():
        if store.blank:
            report.message(f"note: {store.blank} of {len(store)} tiles in {store.path} are all 0")
        if store.skipped:
            report.message(
                f"note: {len(store.skipped)} images of {name} cannot be used and were left out: "
                f"{', '.join(store.skipped)}"
            )
    return opened, root, cache


def _data(scenario: "Scenario", data_root: Path | None, report: Any) -> tuple[Any, Path, Path]:
    """Return edition, data root and cache; renders the sketch archives where they are needed.

    Raises:
        ArchiveError: If the data root mixes real archives and sketches.
    """
    from rscl_bench import registry
    from rscl_bench.archives.adapter import SKETCH_MARKER
    from rscl_bench.archives.sketch import datasets_of, render
    from rscl_bench.tiles.cache import cache_folder

    cache = cache_folder()
    datasets = datasets_of(scenario)
    if data_root is None:
        return "sketch", render(datasets, cache, report.progress), cache
    folders = {data_root / registry.load("datasets", name).folder for name in datasets}
    sketches = sorted(folder for folder in folders if (folder / SKETCH_MARKER).is_file())
    if not sketches:
        return "real", data_root, cache
    if len(sketches) < sum(folder.is_dir() for folder in folders):
        raise ArchiveError(
            f"{sketches[0]} is a synthetic sketch beside real archives; put the real archive there."
        )
    report.message("These archives are synthetic sketches: this is the sketch edition.")
    return "sketch", data_root, cache


def _open_stores(
    scenario_name: str, data_root: Path | None, on_bad_tile: "OnBadTile"
) -> list[tuple[str, Any]]:
    from rscl_bench.console import reporter
    from rscl_bench.declarations import load_scenario
    from rscl_bench.tiles.packing import open_or_pack

    scenario = load_scenario(scenario_name)
    print(_edition_line(scenario, data_root), flush=True)
    opened = []
    with reporter() as report:
        _, root, cache = _data(scenario, data_root, report)
        for task in scenario.tasks:
            store = open_or_pack(root, task, cache, False, report.progress, on_bad_tile)
            opened.append((f"task {task.name}", store))
        for probe in scenario.probes:
            for role, split in probe.splits().items():
                source = probe.source(split)
                store = open_or_pack(root, source, cache, True, report.progress, on_bad_tile)
                opened.append((f"probe {probe.name} {role}", store))
    return opened


def main() -> None:
    """Run the command line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without "–" still gets its table
    app()


if __name__ == "__main__":
    main()
