"""The commands that make figures and tables for papers: `plot` and `leaderboard export`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rscl_bench import api
from rscl_bench.atomic import write_atomic
from rscl_bench.cli.application import app, leaderboard_app
from rscl_bench.cli.leaderboard import print_foreign
from rscl_bench.user_paths import user_path

RecordsArgument = Annotated[
    list[Path], typer.Argument(metavar="RECORDS...", help="Folders or files of run records.")
]
ScenarioChoice = Annotated[
    str | None, typer.Option("--scenario", help="The scenario, if the records have several.")
]
ProtocolChoice = Annotated[
    str | None,
    typer.Option(
        "--protocol", help="The protocol, or the leaderboard's folder, if there are several."
    ),
]
ProbeChoice = Annotated[
    list[str] | None, typer.Option("--probe", help="A probe; may be repeated. All if left out.")
]
MethodChoice = Annotated[
    list[str] | None, typer.Option("--method", help="A method; may be repeated. All if left out.")
]
ScoreChoice = Annotated[
    Literal["micro", "macro"] | None, typer.Option("--score", help="micro-mAP or macro-mAP.")
]


@app.command()
def plot(
    figure: Annotated[
        Literal["curves", "matrix", "pareto", "critical-difference", "loss"],
        typer.Argument(help="What is drawn."),
    ],
    records: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS_OR_RECORDS...", help="Folders or files of run records; folders of runs."
        ),
    ],
    format: Annotated[
        Literal["svg", "pdf", "png"] | None,
        typer.Option(help="Format of the file; that of the ending of --out, or svg."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="File to write; FIGURE.FORMAT in this folder if left out."),
    ] = None,
    scenario: ScenarioChoice = None,
    protocol: ProtocolChoice = None,
    probe: ProbeChoice = None,
    method: MethodChoice = None,
    score: ScoreChoice = None,
    cost: Annotated[
        Literal["operations", "hours"],
        typer.Option(help="For pareto: operations per image, or hours on one device."),
    ] = "operations",
) -> None:
    """Draw a figure of records: curves, matrix, pareto, critical-difference; or the loss of runs.

    A matrix is of one method. Figures have equal bytes for equal records.
    """
    print_foreign(records)
    chosen = format or (None if out is not None and out.suffix else "svg")
    path = out or Path(f"{figure}.{chosen}")
    api.plot(
        figure,
        records,
        scenario=scenario,
        protocol=protocol,
        probes=probe or (),
        methods=method or (),
        score=score or "micro",
        cost=cost,
        out=path,
        format=chosen,
    )
    print(path)


@leaderboard_app.command()
def export(
    records: RecordsArgument,
    format: Annotated[
        Literal["latex", "markdown", "csv-long"],
        typer.Option(help="A table for a paper, or all scores in long form."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="File to write; the standard output if left out.")
    ] = None,
    scenario: ScenarioChoice = None,
    protocol: ProtocolChoice = None,
    probe: ProbeChoice = None,
    method: MethodChoice = None,
    score: ScoreChoice = None,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,C",
            help="Columns of a table: rank, seeds, tasks, T2, final, mean-over-tasks, "
            "gain-over-random, final-average, average-incremental, backward-transfer, forgetting, "
            "forward-transfer, operations, hours.",
        ),
    ] = None,
) -> None:
    """Write a leaderboard as LaTeX (booktabs) or Markdown, or the scores of records as a long CSV.

    A mean is bold only if its row is separated above all other trained rows, after correction for
    all pairs; the caption says so.
    """
    from rscl_bench.sweeps.selection import split_list

    print_foreign(records)
    text = api.export(
        records,
        format,
        scenario=scenario,
        protocol=protocol,
        probes=probe or (),
        methods=method or (),
        score=score,
        columns=() if columns is None else split_list("--columns", columns),
    )
    if out is None:
        print(text, end="")
        return
    write_atomic(user_path(out, "The file of the table"), text)
    print(out)
