"""The commands of `rscl-bench leaderboard`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from rscl_bench import api
from rscl_bench.cli.application import leaderboard_app


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
    print_foreign(records)
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
    print_foreign(records)
    verdicts = api.validate(records)
    counts = dict.fromkeys(("valid", "not recomputable", "refused"), 0)
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
    if counts["not recomputable"]:
        raise typer.Exit(3)


@leaderboard_app.command()
def publish(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Folders of finished runs.", exists=True)
    ],
    into: Annotated[Path, typer.Option(help="Folder of published records.")],
    by: Annotated[str, typer.Option(help="Who sets the marks.")] = "the maintainers",
) -> None:
    """Publish the records of finished runs, with the scores of their images in a packed form.

    Each run is validated first, and nothing is written if one is refused. What is published is
    never replaced. Published records themselves may be named too: they then get their marks.
    """
    print_foreign(runs)
    for path, mark in api.publish(runs, into, by):
        print(f"{path}: {mark}")


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

    print_foreign(records)
    print_power(api.power(records, split_seeds(seeds)))


def print_foreign(records: list[Path]) -> None:
    """Say which JSON files are left out, since they are no run records."""
    foreign = api.foreign_files(records)
    if foreign:
        shown = ", ".join(map(str, foreign[:3])) + (", …" if len(foreign) > 3 else "")
        print(
            f"note: {len(foreign)} JSON file{'s are' if len(foreign) > 1 else ' is'} no run record "
            f"and left out: {shown}",
            file=sys.stderr,
        )
