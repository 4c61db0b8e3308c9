"""Features of many images: of a folder, or of a split of a registered dataset."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rscl_bench import registry
from rscl_bench.archives.adapter import DatasetAdapter
from rscl_bench.archives.lookup import adapter_class
from rscl_bench.encoders.feature_file import Write
from rscl_bench.encoders.folder_images import FolderImages, list_images
from rscl_bench.errors import SpecError, unknown
from rscl_bench.models.encoder_file import EncoderInput
from rscl_bench.pretrained import PretrainedEncoder
from rscl_bench.progress import Reporter
from rscl_bench.spec import OnBadTile, Source
from rscl_bench.tiles.source import archives_of
from rscl_bench.views.crops import Normalisation
from rscl_bench.views.view import whole_view

#: Images per forward pass, as in probing.
BATCH = 128
#: Whose mean and deviation normalise the pixels: of a task of the encoder, or of the images.
Normalise = Literal["task", "own"]
_SHOWN = 3


@dataclass(frozen=True)
class ImagesToEmbed:
    """Images that fit one task of an encoder.

    Attributes:
        key: What names an image: ``path`` below the folder, or number of the ``tile``.
        count: Number of images; fewer come if images are left out.
        images: Keys and pixels ``[H, W, C]``, one by one.
        task: The task whose bands the images have.
        normalisation: Their own mean and deviation; None for the task's.
    """

    key: Literal["path", "tile"]
    count: int
    images: Iterable[tuple[str | int, NDArray[Any]]]
    task: str
    normalisation: Normalisation | None


@dataclass(frozen=True)
class EmbedOptions:
    """What is embedded, and how; see `rscl_bench.api.embed`."""

    task: str | None = None
    normalise: Normalise = "task"
    split: str | None = None
    data_root: Path | None = None
    tile_size: int | None = None
    cut: Literal["grid", "whole"] | None = None
    options: Mapping[str, Any] | None = None
    on_bad_tile: OnBadTile = "stop"


def images_of(
    encoder: PretrainedEncoder, what: str, options: EmbedOptions, reporter: Reporter
) -> ImagesToEmbed:
    """Find images, and check that they fit the encoder.

    Args:
        encoder: The encoder.
        what: A folder of images, or the name of a dataset where ``options.split`` is given or no
            folder has the name.
        options: What is embedded, and how.
        reporter: Told of the progress.

    Raises:
        SpecError: If there is neither such a folder nor such a dataset, or an option does not fit.
        ArchiveError: If an image or an archive is missing, damaged or does not fit.
    """
    if options.split is None and Path(what).is_dir():
        return _of_folder(encoder, Path(what), options, reporter)
    known = what.partition(":")[0] in registry.entries("datasets") or registry.is_reference(what)
    if not known and options.split is None:
        near = unknown("dataset", what, registry.entries("datasets"))
        raise SpecError(f"There is no folder '{what}', and no dataset of this name. {near}")
    return _of_dataset(encoder, what, options, reporter)


def embed_into(
    write: Write, encoder: PretrainedEncoder, found: ImagesToEmbed, reporter: Reporter
) -> int:
    """Encode images in batches, and write each batch.

    Args:
        write: Takes keys and features ``[B, D]``.
        encoder: The encoder, on the device that computes.
        found: The images.
        reporter: Told of the progress.

    Returns:
        The number of rows.
    """
    scaling = encoder.pixel_scaling(found.task, found.normalisation)
    keys: list[str | int] = []
    views: list[Tensor] = []
    done = 0

    def encode() -> None:
        nonlocal done
        with torch.inference_mode():
            write(keys, encoder(torch.cat(views)).float().cpu().numpy())
        done += len(keys)
        reporter.progress("embedding", done, max(done, found.count))
        keys.clear()
        views.clear()

    for key, pixels in found.images:
        tile = torch.from_numpy(np.array(pixels)).to(encoder.device)
        keys.append(key)
        # One by one, since images differ in size, and a batch of large ones would fill the memory.
        views.append(whole_view(tile[None], encoder.image_size, scaling))
        if len(keys) == BATCH:
            encode()
    if keys:
        encode()
    return done


def _of_folder(
    encoder: PretrainedEncoder, folder: Path, options: EmbedOptions, reporter: Reporter
) -> ImagesToEmbed:
    for name in ("tile_size", "cut", "options"):
        if getattr(options, name) is not None:
            raise SpecError(f"'{name}' is of a dataset, and {folder} is a folder; leave it out.")
    listed = list_images(folder)
    if listed.others:
        are = "1 file is no image" if listed.others == 1 else f"{listed.others} files are no images"
        reporter.message(f"note: {are} by name and left out of {folder}")
    skip = options.on_bad_tile == "skip"
    description = encoder.description
    images = FolderImages(listed.images, description, options.task, skip, reporter.progress)
    own = images.normalisation(reporter.progress) if options.normalise == "own" else None
    return ImagesToEmbed(
        key="path",
        count=len(images.paths),
        images=_telling(images, folder, reporter),
        task=description.input_of(options.task).task,
        normalisation=own,
    )


def _telling(
    images: FolderImages, folder: Path, reporter: Reporter
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the images, then say which were left out."""
    yield from images.named(folder)
    skipped = list(dict.fromkeys(images.skipped))
    if skipped:
        names = ", ".join(map(str, skipped[:_SHOWN])) + (", …" if len(skipped) > _SHOWN else "")
        reporter.message(f"note: images that cannot be used and were left out: {names}")


def _of_dataset(
    encoder: PretrainedEncoder, dataset: str, options: EmbedOptions, reporter: Reporter
) -> ImagesToEmbed:
    adapter = adapter_class(dataset, options.options or {})
    given = _input_for(encoder, adapter, dataset, options.task)
    if options.split is None:
        raise SpecError(
            f"Dataset '{dataset}' has the splits {', '.join(adapter.splits)}; choose one with "
            "--split."
        )
    own = {band.name for band in adapter.sensor.bands}
    if not set(given.bands) <= own:
        raise SpecError(
            f"Dataset '{dataset}' has the bands {', '.join(sorted(own))}, and task '{given.task}' "
            f"of the encoder has {', '.join(given.bands)}; choose another task with --task."
        )
    archive = given.archive
    source = Source(
        dataset=dataset,
        split=options.split,
        bands=given.bands,
        tile_size=options.tile_size or (archive.tile_size if archive else encoder.image_size),
        cut=options.cut or (archive.cut if archive else "grid"),
        options=dict(options.options or {}),
    )
    outside = [] if adapter.embedded else [adapter]
    archives = archives_of(outside, options.data_root, options.on_bad_tile, reporter)
    store = archives.open(source, False, reporter.progress)
    std = np.where(store.std > 0, store.std, 1.0)
    normalisation = Normalisation(
        torch.from_numpy(store.mean).float(), torch.from_numpy(std).float()
    )
    return ImagesToEmbed(
        key="tile",
        count=len(store),
        images=((index, store.tiles[index]) for index in range(len(store))),
        task=given.task,
        normalisation=normalisation if options.normalise == "own" else None,
    )


def _input_for(
    encoder: PretrainedEncoder, adapter: type[DatasetAdapter], dataset: str, task: str | None
) -> EncoderInput:
    """Return the input of a task: the given one, the last of the dataset, or the last."""
    description = encoder.description
    if task is None:
        for given in reversed(description.inputs):
            if given.archive is not None and given.archive.dataset == registry.portable(dataset):
                return given
    return description.input_of(task)
