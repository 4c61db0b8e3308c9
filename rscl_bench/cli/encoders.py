"""The commands that use a trained encoder."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from rscl_bench import api
from rscl_bench.cli.application import app
from rscl_bench.cli.options import (
    DataRootOption,
    DeviceOption,
    OnBadOption,
    SetOption,
    ThreadsOption,
    announce_code,
)
from rscl_bench.cores import set_threads
from rscl_bench.user_paths import user_path

EncoderArgument = Annotated[
    str,
    typer.Argument(
        metavar="ENCODER",
        help="The encoder.safetensors of a run, or hf://owner/name on the Hugging Face Hub.",
    ),
]


@app.command()
def embed(
    encoder: EncoderArgument,
    images: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|DATASET",
            help="A folder of JPEG, PNG and TIFF images, or a registered dataset with --split.",
        ),
    ],
    out: Annotated[Path, typer.Option("--out", help="File of features: .csv, .parquet or .npy.")],
    split: Annotated[str | None, typer.Option(help="Split of the dataset.")] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Task of the encoder whose bands the images have; the last one, or the last one "
            "of the dataset, if left out.",
        ),
    ] = None,
    normalise: Annotated[
        Literal["task", "own"],
        typer.Option(
            help="Whether mean and deviation of the pixels are those of the task, or the images' "
            "own, as in training and probing."
        ),
    ] = "task",
    tile_size: Annotated[
        int | None,
        typer.Option(min=1, help="Side of a dataset's tiles in pixels; as the task if left out."),
    ] = None,
    cut: Annotated[
        Literal["grid", "whole"] | None,
        typer.Option(
            help="Cut a dataset's images into tiles, or resize each to one; as the task by default."
        ),
    ] = None,
    options: Annotated[
        list[str] | None,
        typer.Option("--option", metavar="KEY=VALUE", help="Option of the dataset."),
    ] = None,
    data_root: DataRootOption = None,
    on_bad_tile: OnBadOption = "stop",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Write the features of a folder of images, or of a split of a dataset: one row per image.

    The columns are the path below the folder, or the number of the tile, and f0, f1, ... Images are
    read in batches, so that a folder may be larger than the memory. Beside NAME.npy lies
    NAME.rows.csv with the path or tile of every row. Parquet needs pyarrow.
    """
    from rscl_bench.resolve import parse_assignments

    if threads is not None:
        set_threads(threads)  # before the libraries are loaded
    rows = api.embed(
        encoder,
        images,
        out,
        split=split,
        task=task,
        normalise=normalise,
        tile_size=tile_size,
        cut=cut,
        options=parse_assignments(options, "--option") if options else None,
        data_root=data_root,
        on_bad_tile=on_bad_tile,
        device=device,
        threads=threads,
    )
    print(f"{out}: {rows} rows")


@app.command()
def probe(
    encoder: EncoderArgument,
    scenario: Annotated[str, typer.Argument(help="A known scenario, or a path to a TOML.")],
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            help="A protocol of the scenario; that of the encoder's run, or else the scenario's "
            "default, if left out.",
        ),
    ] = None,
    assignments: SetOption = None,
    timm: Annotated[
        str | None,
        typer.Option(
            "--timm",
            metavar="MODEL",
            help="Model of timm that the weights of another project are of, in place of the "
            "protocol's backbone.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="File for the scores, with those of every image; the default is "
            "probe-SCENARIO-PROTOCOL-DIGEST.json here.",
            show_default=False,
        ),
    ] = None,
    data_root: DataRootOption = None,
    on_bad_tile: OnBadOption = "stop",
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Evaluate any encoder on the probes of a scenario: of a run, or of another project.

    Weights of another project are a state dict that fits the protocol's backbone, or the model that
    --timm names. The encoder of a run gets the scores of its record, which are compared if the
    record lies beside the encoder. The JSON that is written is no run record.
    """
    from rscl_bench.console import print_probed
    from rscl_bench.encoders.encoder_scores import write_probed
    from rscl_bench.resolve import parse_assignments

    if threads is not None:
        set_threads(threads)  # before the libraries are loaded
    announce_code(scenario)
    probed = api.probe(
        encoder,
        scenario,
        protocol=protocol,
        set=parse_assignments(assignments or ()),
        timm=timm,
        data_root=data_root,
        on_bad_tile=on_bad_tile,
        device=device,
        threads=threads,
    )
    path = user_path(out or probed.default_name(), "The file of scores")
    write_probed(probed, path)
    print_probed(probed)
    print(f"scores: {path}")


@app.command()
def push(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="RUN", help="Folder of a finished run, or its record.json.", exists=True
        ),
    ],
    repository: Annotated[str, typer.Argument(metavar="OWNER/NAME", help="Repository of the Hub.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private.")
    ] = False,
) -> None:
    """Upload a run's encoder to the Hugging Face Hub, with its record and a model card.

    Needs pip install 'rscl-bench[hub]', and a login by `hf auth login` or HF_TOKEN. The card names
    the licences of the archives that the encoder was trained on: see whether they allow it.
    """
    print(api.push(run, repository, private=private))


@app.command()
def pull(
    repository: Annotated[
        str,
        typer.Argument(metavar="OWNER/NAME", help="Repository of the Hub; @REVISION may follow."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
) -> None:
    """Download an encoder from the Hugging Face Hub, with its record, and check their digests.

    Needs pip install 'rscl-bench[hub]'.
    """
    print(f"encoder: {api.pull(repository, out)}")
