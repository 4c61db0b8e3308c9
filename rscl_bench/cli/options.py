"""Options that several commands share."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

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


KeepEncodersOption = Annotated[
    bool,
    typer.Option(
        "--keep-encoders",
        help="Keep the encoder after every task, as encoders/NUMBER-TASK.safetensors beside the "
        "record.",
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


def announce_code(*names: str) -> None:
    """Say which files of code the TOMLs of this command name, before the code is run."""
    from rscl_bench.declarations import code_files

    for file in code_files(*names):
        print(f"note: this command runs the code of {file}", file=sys.stderr)
