"""The commands of `rscl-bench submit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rscl_bench import api
from rscl_bench.cli.application import submit_app
from rscl_bench.cli.leaderboard import print_foreign
from rscl_bench.cli.options import DataRootOption, DeviceOption

if TYPE_CHECKING:
    from rscl_bench.submissions.checking import Checked
    from rscl_bench.submissions.reprobing import Reprobed

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="A file of `submit pack`.", exists=True)
]
ReprobeOption = Annotated[
    bool,
    typer.Option(
        "--reprobe", help="Probe the encoders again, from the archives below the data root."
    ),
]
ProbedScenarioOption = Annotated[
    str | None,
    typer.Option(
        "--scenario",
        help="For --reprobe: the scenario of the runs; a known one with their name if left out.",
        show_default=False,
    ),
]


@submit_app.command()
def pack(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.", exists=True)
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")],
    code: Annotated[
        list[Path] | None,
        typer.Option("--code", help="A file of code that the recipe names by path.", exists=True),
    ] = None,
    encoders: Annotated[
        bool, typer.Option("--encoders", help="Pack the encoders too, so that they can be probed.")
    ] = False,
) -> None:
    """Bundle record, image scores, recipe and code of finished runs into one file."""
    print_foreign(runs)
    packed = api.pack_submission(runs, out, code=code or (), encoders=encoders)
    for name in packed.files:
        print(name)
    print(f"{packed.path}: {packed.path.stat().st_size} bytes, SHA-256 {packed.digest}")


@submit_app.command()
def check(
    file: FileArgument,
    against: Annotated[Path, typer.Option(help="Folder of published records.")] = Path(
        "leaderboards/records"
    ),
    reprobe: ReprobeOption = False,
    scenario: ProbedScenarioOption = None,
    data_root: DataRootOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Recompute the scores of a submission, and say what it changes in the tables.

    A submission is refused if a record is, if it is published already, if it was made from other
    archives than the table, or if it edits a row of others. The exit status is then 1.
    """
    checked, again = api.check_submission(
        file, against, reprobe=reprobe, scenario=scenario, data_root=data_root, device=device
    )
    _print_checked(checked, again)


@submit_app.command()
def add(
    file: FileArgument,
    into: Annotated[Path, typer.Option(help="Folder of published records.")] = Path(
        "leaderboards/records"
    ),
    by: Annotated[str, typer.Option(help="Who sets the marks.")] = "the maintainers",
    reprobe: ReprobeOption = False,
    scenario: ProbedScenarioOption = None,
    data_root: DataRootOption = None,
    device: DeviceOption = "auto",
) -> None:
    """Check a submission, and add its runs to the published records with their marks."""
    added = api.add_submission(
        file,
        into,
        by=by,
        reprobe=reprobe,
        scenario=scenario,
        data_root=data_root,
        device=device,
    )
    for path, mark in added:
        print(f"{path}: {mark}")


def _print_checked(checked: "Checked", again: "dict[Path, Reprobed]") -> None:
    for path, record in checked.records.items():
        identity = record.identity
        line = f"{record.id} {identity.method['name']}, seed {identity.seed}: recomputed"
        probed = again.get(path)
        if probed is not None:
            where = "another machine" if probed.elsewhere else "a machine of the same kind"
            line += (
                f", and probed again on {where}, {probed.machine}: the largest difference is "
                f"{100 * probed.largest:.3g} points"
            )
        print(line)
    for table in checked.tables:
        print(f"table {table.folder}:")
        for sign, lines in (("+", table.added), ("~", table.changed)):
            for line in lines:
                print(f"  {sign} {line}")
        if not table.changed:
            print("  no published row changes")
    for note in checked.notes:
        print(f"note: {note}")
