"""Load a trained encoder, and use it."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from rscl_bench.api.arguments import Settings, as_data_root, as_scenario
from rscl_bench.api.preparation import edition_line, report_notes, reporting
from rscl_bench.cores import let_threads_sleep
from rscl_bench.user_paths import user_path

if TYPE_CHECKING:
    import pandas as pd

    from rscl_bench.encoders.embedding import Normalise
    from rscl_bench.encoders.encoder_scores import EncoderScores
    from rscl_bench.pretrained import PretrainedEncoder
    from rscl_bench.spec import OnBadTile, Scenario


def load_encoder(path: str | Path, backbone: str | None = None) -> "PretrainedEncoder":
    """Load the encoder of a finished run, ready to encode new images.

    Args:
        path: The run's ``encoder.safetensors``, or ``hf://owner/name``, a repository of the Hugging
            Face Hub that `push` filled; ``hf://owner/name@revision`` names a commit, tag or branch.
        backbone: For a backbone of your own that was used by path: the path of its class,
            ``file.py:Class``.

    Returns:
        The encoder in evaluation mode, on the CPU; see
        `rscl_bench.pretrained.PretrainedEncoder`.

    Raises:
        ArtefactError: If the file is damaged, or a run of an older version wrote the file.
        SpecError: If the backbone is not installed, its code is not the code of the run, or
            huggingface_hub is missing for the Hub.
    """
    from rscl_bench.pretrained import load_pretrained

    return load_pretrained(_encoder_file(path), backbone)


def _encoder_file(path: str | Path) -> Path:
    """Return the path of an encoder's file, downloaded from the Hub for ``hf://``."""
    if str(path).startswith("hf://"):
        from rscl_bench.encoders.hub import cached_encoder

        return cached_encoder(str(path))
    return user_path(path, "The encoder")


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


def probe(
    encoder: str | Path,
    scenario: "str | Path | Scenario",
    *,
    protocol: str | None = None,
    set: Settings | None = None,
    timm: str | None = None,
    out: str | Path | None = None,
    data_root: str | Path | None = None,
    on_bad_tile: "OnBadTile" = "stop",
    device: str = "auto",
    threads: int | None = None,
    verbose: bool = True,
) -> "EncoderScores":
    """Evaluate any encoder on the probes of a scenario, as a run does after a task.

    The encoder of a run gets the scores of its record, to the last bit, on a machine and with a
    number of threads like the run's. An encoder of this package keeps the image size and the bands
    that it was trained with. Pixels are normalised by the statistics of each probe's training
    split, as in a run, and not as another project did.

    Args:
        encoder: The ``encoder.safetensors`` of a run, or weights of another project: a state dict,
            as for ``init`` in `run`.
        scenario: As in `run`.
        protocol: As in `run`; None for the protocol of the encoder's run if the scenario has it.
        set: Values that override the protocol, such as ``backbone.name`` and ``image_size`` for
            weights of another project.
        timm: For weights of another project: name of their model in timm, in place of the
            protocol's backbone.
        out: File for the scores, with those of every image; None writes none.
        data_root: As in `run`.
        on_bad_tile: As in `run`.
        device: As in `run`.
        threads: As in `run`.
        verbose: As in `run`.

    Returns:
        The scores; ``recorded`` has those of the run's record where it lies beside the encoder.

    Raises:
        SpecError: If an argument is not valid, or the weights do not fit.
        ArchiveError: If an archive is missing, partial or holds an unusable file.
        ArtefactError: If a file is damaged, or ``out`` cannot be written.
    """
    let_threads_sleep()
    from rscl_bench.encoders.encoder_scores import write_probed
    from rscl_bench.encoders.probing import (
        load_for_probing,
        probe_encoder,
        probing_spec,
        recorded_row,
    )
    from rscl_bench.engine.device import cpu_threads

    file, root = _encoder_file(encoder), as_data_root(data_root)
    spec = probing_spec(file, as_scenario(scenario), protocol, dict(set or {}))
    with reporting(verbose) as reporter, cpu_threads(threads):
        reporter.message(edition_line(spec.scenario, root))
        report_notes([spec], reporter)
        loaded = load_for_probing(file, spec, timm)
        known = recorded_row(file, loaded.source.digest)
        probed = probe_encoder(loaded, spec, root, device, on_bad_tile, reporter, known)
    if out is not None:
        write_probed(probed, user_path(out, "The file of scores"))
    return probed


def push(run: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a run's encoder to the Hugging Face Hub, with its record and a model card.

    The model card is made from the record and the encoder's description: bands, normalisation,
    scores with intervals over test images, the licences of the archives, and how to load it. The
    image scores are uploaded too, where they are kept. The upload is one commit.

    Args:
        run: The run's folder, or its ``record.json``.
        repository: ``owner/name``; made if it does not exist.
        private: Whether a new repository is private.

    Returns:
        The address of the repository.

    Raises:
        SpecError: If huggingface_hub is missing, or ``repository`` names no repository.
        ArtefactError: If a file of the run is missing or damaged, or the Hub refuses the upload.
    """
    from rscl_bench.encoders import hub

    return hub.push(user_path(run, "The run"), repository, private)


def pull(repository: str, out: str | Path) -> Path:
    """Download an encoder that `push` uploaded, with its record, and check their digests.

    Args:
        repository: ``owner/name``, or ``owner/name@revision``.
        out: Folder to write to.

    Returns:
        The path of ``encoder.safetensors``.

    Raises:
        SpecError: If huggingface_hub is missing, or ``repository`` names no repository.
        ArtefactError: If the repository or a file is missing or damaged, a digest is not the
            record's, or ``out`` holds another run.
    """
    from rscl_bench.encoders import hub

    return hub.pull(repository, user_path(out, "The output folder"))
