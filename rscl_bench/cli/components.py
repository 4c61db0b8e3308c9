"""The commands about components: `list`, `show` and `new`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from rscl_bench import api
from rscl_bench.cli.application import app
from rscl_bench.cli.options import ProtocolOption, SetOption, announce_code


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

    announce_code(*filter(None, (name.removeprefix("method:"), scenario)))
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
