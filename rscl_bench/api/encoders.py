"""Load a trained encoder, and use it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from rscl_bench.api.arguments import as_data_root
from rscl_bench.api.preparation import reporting
from rscl_bench.cores import let_threads_sleep
from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    import pandas as pd

    from rscl_bench.encoders.embedding import Normalise
    from rscl_bench.pretrained import PretrainedEncoder
    from rscl_bench.spec import OnBadTile


def load_encoder(path: str | Path, backbone: str | None = None) -> "PretrainedEncoder":
    """Load the encoder of a finished run, ready to encode new images.

    Args:
        path: The run's ``encoder.safetensors``.
        backbone: For a backbone of your own that was used by path: the path of its class,
            ``file.py:Class``.

    Returns:
        The encoder in evaluation mode, on the CPU; see
        `rscl_bench.pretrained.PretrainedEncoder`.

    Raises:
        ArtefactError: If the file is damaged, or a run of an older version wrote the file.
        SpecError: If the backbone is not installed, or its code is not the code of the run.
    """
    from rscl_bench.pretrained import load_pretrained

    return load_pretrained(user_path(path, "The encoder"), backbone)


@overload
def embed(
    encoder: "str | Path | PretrainedEncoder",
    images: str | Path,
    out: None = None,
    *,
    split: str | None = None,
    task: str | None = None,
    normalise: "Normalise" = "task",
    tile_size: int | None = None,
    cut: Literal["grid", "whole"] | None = None,
    options: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
    on_bad_tile: "OnBadTile" = "stop",
    device: str = "auto",
    threads: int | None = None,
    verbose: bool = True,
) -> "pd.DataFrame": ...


@overload
def embed(
    encoder: "str | Path | PretrainedEncoder",
    images: str | Path,
    out: str | Path,
    *,
    split: str | None = None,
    task: str | None = None,
    normalise: "Normalise" = "task",
    tile_size: int | None = None,
    cut: Literal["grid", "whole"] | None = None,
    options: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
    on_bad_tile: "OnBadTile" = "stop",
    device: str = "auto",
    threads: int | None = None,
    verbose: bool = True,
) -> int: ...


def embed(
    encoder: "str | Path | PretrainedEncoder",
    images: str | Path,
    out: str | Path | None = None,
    *,
    split: str | None = None,
    task: str | None = None,
    normalise: "Normalise" = "task",
    tile_size: int | None = None,
    cut: Literal["grid", "whole"] | None = None,
    options: Mapping[str, Any] | None = None,
    data_root: str | Path | None = None,
    on_bad_tile: "OnBadTile" = "stop",
    device: str = "auto",
    threads: int | None = None,
    verbose: bool = True,
) -> "pd.DataFrame | int":
    """Encode a folder of images, or a split of a dataset: one row of features for each image.

    Every image is resized to the encoder's input, normalised, encoded and pooled, as in probing.
    Images are read in batches, so that any number of them fits into memory if ``out`` is given.

    Args:
        encoder: An encoder's file, or a loaded encoder.
        images: A folder of JPEG, PNG and TIFF images, at any depth, or the name of a registered
            dataset with ``split``.
        out: File to write, ``.csv``, ``.parquet`` or ``.npy``; None returns a table. Beside
            ``NAME.npy`` lies ``NAME.rows.csv`` with the path or tile of every row.
        split: A split of the dataset.
        task: Task of the encoder whose bands the images have; None for the last task, or for the
            last task of the dataset.
        normalise: Whether mean and deviation are those of the ``task``, or the images' ``own``, as
            probes and training have them.
        tile_size: Of a dataset: side of its tiles in pixels; None for that of the task.
        cut: Of a dataset: ``grid`` or ``whole``; None for that of the task.
        options: Of a dataset: its options.
        data_root: Of a dataset: as in `run`.
        on_bad_tile: Whether an image that cannot be used ends the call, or is left out.
        device: As in `run`.
        threads: As in `run`.
        verbose: As in `run`.

    Returns:
        The number of rows that were written; without ``out``, a table with the column ``path`` or
        ``tile`` and the columns ``f0``, ``f1``, ... of float32.

    Raises:
        SpecError: If an argument is not valid, or pyarrow is missing for Parquet.
        ArchiveError: If the folder is empty, or an image or archive is damaged or does not fit.
        ArtefactError: If the encoder is damaged, or ``out`` cannot be written.
    """
    let_threads_sleep()
    from rscl_bench.encoders.embedding import EmbedOptions, embed_into, images_of
    from rscl_bench.encoders.feature_file import check_file, table_of, writing
    from rscl_bench.engine.device import cpu_threads, open_device
    from rscl_bench.pretrained import PretrainedEncoder

    target = None if out is None else user_path(out, "The file of features")
    if target is not None:
        check_file(target)
    loaded = encoder if isinstance(encoder, PretrainedEncoder) else load_encoder(encoder)
    chosen = EmbedOptions(
        task=task,
        normalise=normalise,
        split=split,
        data_root=as_data_root(data_root),
        tile_size=tile_size,
        cut=cut,
        options=options,
        on_bad_tile=on_bad_tile,
    )
    with reporting(verbose) as reporter, cpu_threads(threads):
        loaded = loaded.to(open_device(device, "fp32").torch)
        found = images_of(loaded, str(images), chosen, reporter)
        if target is None:
            return table_of(
                lambda write: embed_into(write, loaded, found, reporter),
                found.key,
                loaded.feature_dim,
            )
        with writing(target, found.key, loaded.feature_dim, found.count) as write:
            return embed_into(write, loaded, found, reporter)
