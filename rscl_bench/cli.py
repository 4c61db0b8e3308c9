"""The command line; nothing heavy is imported before a command runs."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from rscl_bench.errors import ArchiveError, RsclError

if TYPE_CHECKING:
    from rscl_bench.spec import Scenario


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
            print("interrupted; nothing was recorded", file=sys.stderr)
            raise typer.Exit(130) from error


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


@app.command()
def run(
    scenario: ScenarioOption,
    method: Annotated[str, typer.Option(help="A known method, or a path to a TOML.")],
    protocol: Annotated[
        str | None, typer.Option(help="A protocol of the scenario; its default if left out.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the run.")] = 0,
    data_root: DataRootOption = None,
    out: Annotated[Path, typer.Option(help="Folder for records and encoders.")] = Path("runs"),
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    assignments: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Override a field of the protocol (training.epochs=5), of the objective "
            "(objective.mask_ratio=0.6) or of a strategy (strategies.data-mixup.alpha=1).",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Run again what is recorded.")] = False,
) -> None:
    """Train one method through a scenario, probe after each task, write the record."""
    from rscl_bench.console import print_run, reporter
    from rscl_bench.declarations import load_method, load_scenario
    from rscl_bench.resolve import resolve_run

    spec = resolve_run(
        load_scenario(scenario), load_method(method), protocol, seed, tuple(assignments or ())
    )
    print(_edition_line(spec.scenario, data_root), flush=True)
    from rscl_bench.engine.run import check_writable, execute, open_run, run_folder
    from rscl_bench.results.record import read_record

    check_writable(out)  # before an hour of packing, not after it
    with reporter() as report:
        edition, root, cache = _data(spec.scenario, data_root, report)
        opened = open_run(spec, edition, root, cache, device, report.progress)
        for store in opened.blank_stores():
            report.message(f"note: {store.blank} of {len(store)} tiles in {store.path} are all 0")
        folder = run_folder(out, opened)
        path = folder / "record.json"
        known = path.is_file() and not force
        record = read_record(path) if known else execute(opened, folder, report)
    print_run(record)
    print(f"{'already recorded (--force runs it again)' if known else 'record'}: {path}")


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
        print_names(kind, [(name, e.summary) for name, e in registry.entries(kind).items()])


@app.command()
def show(
    name: Annotated[str, typer.Argument(help="A scenario or method, or a path to a TOML.")],
) -> None:
    """Print the resolved spec of a scenario or method as JSON, defaults filled in."""
    import json

    from rscl_bench.declarations import load_any

    print(json.dumps(load_any(name).model_dump(mode="json"), indent=2))


@data_app.command()
def prepare(scenario: ScenarioOption, data_root: DataRootOption = None) -> None:
    """Pack all tiles of a scenario, so that runs start at once."""
    stores = _open_stores(scenario, data_root)
    for name, store in stores:
        shape = "×".join(map(str, store.tiles.shape[1:]))
        print(f"{name}: {len(store)} tiles of {shape} {store.tiles.dtype}, {store.blank} all zero")


@data_app.command()
def verify(scenario: ScenarioOption, data_root: DataRootOption = None) -> None:
    """Check that a scenario's archives are complete and its packed tiles are what was packed."""
    for name, store in _open_stores(scenario, data_root):
        print(f"{name}: {len(store)} tiles, SHA-256 {store.digest}")


@data_app.command()
def sketch(
    scenario: ScenarioOption,
    out: Annotated[
        Path, typer.Option(help="Folder to write to; the data root is below it, as printed.")
    ],
) -> None:
    """Render a scenario's synthetic archives, in the true layouts, into a folder."""
    from rscl_bench.console import reporter
    from rscl_bench.data.sketch import datasets_of, render
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
    from rscl_bench.results.leaderboard import build_leaderboard

    for path in build_leaderboard(records, out):
        print(path)


def _edition_line(scenario: "Scenario", data_root: Path | None) -> str:
    if data_root is not None:
        return f"Archives of {scenario.name} from {data_root}."
    return (
        f"Sketch edition of {scenario.name}: small synthetic images, no result about the real "
        "world. For real archives give --data-root DIR or set RSCL_DATA_ROOT."
    )


def _data(scenario: "Scenario", data_root: Path | None, report: Any) -> tuple[Any, Path, Path]:
    """Return edition, data root and cache; renders the sketch archives where they are needed.

    Raises:
        ArchiveError: If the data root mixes real archives and sketches.
    """
    from rscl_bench import registry
    from rscl_bench.data.adapter import SKETCH_MARKER
    from rscl_bench.data.cache import cache_folder
    from rscl_bench.data.sketch import datasets_of, render

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


def _open_stores(scenario_name: str, data_root: Path | None) -> list[tuple[str, Any]]:
    from rscl_bench.console import reporter
    from rscl_bench.data.tile_store import open_or_pack
    from rscl_bench.declarations import load_scenario

    scenario = load_scenario(scenario_name)
    print(_edition_line(scenario, data_root), flush=True)
    opened = []
    with reporter() as report:
        _, root, cache = _data(scenario, data_root, report)
        for task in scenario.tasks:
            store = open_or_pack(root, task, cache, False, report.progress)
            opened.append((f"task {task.name}", store))
        for probe in scenario.probes:
            for role, split in probe.splits().items():
                store = open_or_pack(root, probe.source(split), cache, True, report.progress)
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
